// Chebyshev recursion a_{n+1} = 2 H~ a_n - a_{n-1} of a few vectors at once, as a stencil over the bonds of a lattice.
//
// A vector has four real numbers per site: up and down, each real and imaginary. WIDTH vectors lie side by side: arrays
// of vectors have shape (rows, 4, WIDTH). The first rows are the sites of this rank, line by line, followed by those of
// other ranks; the last row, which stays zero, stands for sites beyond open edges. The arithmetic of a site and a
// vector does not depend on what is computed beside it, and products are summed line by line, so that no bit depends on
// the number of lines of this rank.
//
// Vectors of step n are in array n % 2 of two. A call does some steps on some lines: all of both if nothing has to be
// exchanged between steps.

#include <stdint.h>
#include <string.h>

// As many as a register of the processor holds: gcc splits longer vectors through memory, which is five times slower.
#if defined(__AVX512F__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
typedef double vec __attribute__((vector_size(8 * WIDTH), may_alias));

// The scaled Hamiltonian 2 H~. The neighbours of site i across bond k are targets[2 (bonds i + k)], to which the matrix
// of the bond leads, and the next entry, to which its adjoint leads. plain: all matrices are real multiples of the
// identity.
typedef struct {
    int64_t sites, across, rows, bonds, plain;  // across: sites per line; rows: rows of an array of vectors
    const int32_t *targets;
    const double *hopping;  // (bonds, 2, 2, 2): real and imaginary parts of each matrix
    const double *onsite;   // (sites, 4): coefficients of 1 and of the Pauli matrices
} hamiltonian;

typedef struct {
    vec part[4];
} spinor;

typedef struct {
    int64_t first_step, last_step, first_line, last_line;
} part;

// The array of vectors of a step, out of two.
static inline double *of_step(const hamiltonian *h, double *vectors, int64_t n) {
    return vectors + n % 2 * 4 * WIDTH * h->rows;
}

static inline const vec *at(const double *vectors, int64_t site) { return (const vec *)(vectors + site * 4 * WIDTH); }

// sum += (re + i im) (x + i y)
static inline void add_product(vec *sum, double re, double im, vec x, vec y) {
    sum[0] += re * x - im * y;
    sum[1] += re * y + im * x;
}

// (2 H~ x)_i
static inline spinor apply(const hamiltonian *h, const double *vectors, int64_t i) {
    spinor s = {{{0}, {0}, {0}, {0}}};
    const int32_t *target = h->targets + 2 * h->bonds * i;
    for (int64_t k = 0; k < h->bonds; k++) {
        const vec *ahead = at(vectors, target[2 * k]), *behind = at(vectors, target[2 * k + 1]);
        const double *t = h->hopping + 8 * k;
        if (h->plain) {
            for (int c = 0; c < 4; c++) s.part[c] += t[0] * (ahead[c] + behind[c]);
            continue;
        }
        for (int a = 0; a < 2; a++)
            for (int b = 0; b < 2; b++) {
                const double *forth = t + 4 * a + 2 * b, *back = t + 4 * b + 2 * a;
                add_product(s.part + 2 * a, forth[0], forth[1], ahead[2 * b], ahead[2 * b + 1]);
                add_product(s.part + 2 * a, back[0], -back[1], behind[2 * b], behind[2 * b + 1]);
            }
    }
    const vec *x = at(vectors, i);
    const double *e = h->onsite + 4 * i;
    const double up = e[0] + e[3], down = e[0] - e[3];
    s.part[0] += up * x[0] + e[1] * x[2] + e[2] * x[3];
    s.part[1] += up * x[1] + e[1] * x[3] - e[2] * x[2];
    s.part[2] += down * x[2] + e[1] * x[0] - e[2] * x[1];
    s.part[3] += down * x[3] + e[1] * x[1] + e[2] * x[0];
    return s;
}

static double total(vec x) {
    double sum = 0;
    for (int r = 0; r < WIDTH; r++) sum += x[r];
    return sum;
}

// Sites where the probes of this group are nonzero, with the pair of vectors (up, down) that starts there and its
// phase. Moments are kept for every stride-th of them, from number `first` on.
typedef struct {
    int64_t count, first, stride;
    const int32_t *site, *pair;
    const double *phase;  // (count, 2)
} probes;

// a_0, and zero for a_{-1}.
void hpcspin_start(const hamiltonian *h, const probes *p, double *vectors) {
    memset(vectors, 0, 2 * sizeof(double) * 4 * WIDTH * h->rows);
    for (int64_t k = 0; k < p->count; k++) {
        double *x = vectors + 4 * WIDTH * (int64_t)p->site[k] + 2 * p->pair[k];
        for (int part = 0; part < 2; part++) {
            x[part * WIDTH] = p->phase[2 * k + part];
            x[(2 + part) * WIDTH + 1] = p->phase[2 * k + part];
        }
    }
}

// Components tr(m), tr(sigma m) of the Hermitian part of m = (T_n v)_i v_i^H, where moments are kept, on some lines;
// tr(m) of every probed site is added to the trace of its line.
static void read_out(const hamiltonian *h, const probes *p, const part *of, const double *vectors, double *moments,
                     double *traces) {
    for (int64_t k = 0; k < p->count; k++) {
        const int64_t line = p->site[k] / h->across;
        if (line < of->first_line || line >= of->last_line) continue;
        const double *x = vectors + 4 * WIDTH * (int64_t)p->site[k] + 2 * p->pair[k];
        const double c = p->phase[2 * k], s = p->phase[2 * k + 1];
        const double uu = c * x[0] + s * x[WIDTH], dd = c * x[2 * WIDTH + 1] + s * x[3 * WIDTH + 1];
        const double ud_re = c * x[1] + s * x[WIDTH + 1], ud_im = c * x[WIDTH + 1] - s * x[1];
        const double du_re = c * x[2 * WIDTH] + s * x[3 * WIDTH], du_im = c * x[3 * WIDTH] - s * x[2 * WIDTH];
        traces[line] += uu + dd;
        if (k < p->first || (k - p->first) % p->stride) continue;
        double *m = moments + 4 * ((k - p->first) / p->stride);
        m[0] = uu + dd;
        m[1] = ud_re + du_re;
        m[2] = du_im - ud_im;
        m[3] = uu - dd;
    }
}

// a_{n+1} from a_n and a_{n-1}, which it replaces. With probes, their moments (steps, kept, 4) and traces (steps,
// lines) are read out before each step; without, <a_n|a_n> and Re <a_n|a_{n+1}> are summed on each line into products
// (lines, steps, 2).
static inline __attribute__((always_inline)) void forward(const hamiltonian *h, part of, const probes *p, int64_t steps,
                                                          double *vectors, double *moments, double *traces,
                                                          double *products) {
    const int64_t kept = p && p->count > p->first ? (p->count - p->first - 1) / p->stride + 1 : 0;
    const int64_t lines = h->sites / h->across;
    for (int64_t n = of.first_step; n < of.last_step; n++) {
        const double *near = of_step(h, vectors, n), scale = n ? 1 : 0.5;
        double *far = of_step(h, vectors, n + 1);
        if (p) read_out(h, p, &of, near, moments + 4 * kept * n, traces + lines * n);
        for (int64_t line = of.first_line; line < of.last_line; line++) {
            vec same = {0}, next = {0};
            for (int64_t i = line * h->across; i < (line + 1) * h->across; i++) {
                const spinor s = apply(h, near, i);
                const vec *x = at(near, i);
                vec *out = (vec *)at(far, i);
                for (int c = 0; c < 4; c++) {
                    out[c] = scale * s.part[c] - out[c];
                    if (products) {
                        same += x[c] * x[c];
                        next += x[c] * out[c];
                    }
                }
            }
            if (products) {
                products[2 * (steps * line + n)] = total(same);
                products[2 * (steps * line + n) + 1] = total(next);
            }
        }
    }
}

void hpcspin_local_moments(const hamiltonian *h, const part *of, const probes *p, double *vectors, double *moments,
                           double *traces) {
    forward(h, *of, p, 0, vectors, moments, traces, 0);
}

void hpcspin_products(const hamiltonian *h, const part *of, int64_t steps, double *vectors, double *products) {
    forward(h, *of, 0, steps, vectors, 0, 0, products);
}

// Derivative of sum_n w_n <v|T_n|v> with respect to the on-site blocks of H~, added to gradient (sites, 4), by a
// reverse sweep through the recursion. With the weights even[n] and odd[n] of <a_n|a_n> and Re <a_n|a_{n+1}> in that
// sum,
//
//     l_n = 2 even[n] a_n + odd[n] a_{n+1} + odd[n-1] a_{n-1} + 2 H~ l_{n+1} - l_{n+2},
//     gradient_i = sum_n (2 - delta_{n0}) Re <l_{n+1}| 1, sigma |a_n>_i.
//
// Steps run downwards. vectors holds a_n and a_{n+1}; reverse holds l_{n+1}, in the array of step n, and l_{n+2}.
void hpcspin_gradient(const hamiltonian *h, const part *of, const double *even, const double *odd, double *vectors,
                      double *reverse, double *gradient) {
    for (int64_t n = of->last_step - 1; n >= of->first_step; n--) {
        const double *near = of_step(h, vectors, n), *later = of_step(h, reverse, n);
        double *far = of_step(h, vectors, n + 1), *latest = of_step(h, reverse, n + 1);
        for (int64_t i = of->first_line * h->across; i < of->last_line * h->across; i++) {
            const vec *a = at(near, i), *l = at(later, i);
            double *out = gradient + 4 * i;
            const double weight = n ? 2 : 1;
            const vec up = l[0] * a[0] + l[1] * a[1], down = l[2] * a[2] + l[3] * a[3];
            out[0] += weight * total(up + down);
            out[1] += weight * total(l[0] * a[2] + l[1] * a[3] + l[2] * a[0] + l[3] * a[1]);
            out[2] += weight * total(l[0] * a[3] - l[1] * a[2] - l[2] * a[1] + l[3] * a[0]);
            out[3] += weight * total(up - down);
            if (n == 0) continue;
            const spinor back = apply(h, near, i), adjoint = apply(h, later, i);
            vec *before = (vec *)at(far, i), *earlier = (vec *)at(latest, i);
            for (int c = 0; c < 4; c++) {
                const vec after = before[c];
                before[c] = back.part[c] - after;
                earlier[c] = 2 * even[n] * a[c] + odd[n] * after + odd[n - 1] * before[c] + adjoint.part[c] - earlier[c];
            }
        }
    }
}

int64_t hpcspin_width(void) { return WIDTH; }
