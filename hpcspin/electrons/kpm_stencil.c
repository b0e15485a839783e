// Chebyshev recursion a_{n+1} = 2 H~ a_n - a_{n-1} of a few vectors at once, as a stencil over the bonds of a lattice.
//
// A vector has four real numbers a site: up and down, each real and imaginary. WIDTH vectors lie side by side: arrays of
// vectors have shape (sites + 1, 4, WIDTH), and the last site, zero for ever, stands beyond open edges. The arithmetic of a
// site and a vector does not depend on what is computed beside it.

#include <stdint.h>
#include <string.h>

#define WIDTH 8
typedef double vec __attribute__((vector_size(8 * WIDTH), may_alias));

// The scaled Hamiltonian 2 H~. Of site i the neighbours across bond k are targets[2 (bonds i + k)], to which the bond's
// matrix leads, and the next number, to which its adjoint does. plain: all matrices are real numbers times the identity.
typedef struct {
    int64_t sites, bonds, plain;
    const int32_t *targets;
    const double *hopping;  // (bonds, 2, 2, 2): real and imaginary parts of each matrix
    const double *onsite;   // (sites, 4): coefficients of 1 and of the Pauli matrices
} hamiltonian;

typedef struct {
    vec part[4];
} spinor;

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

// far <- scale 2 H~ near - far; scale 1/2 and far = 0 for the first step.
static void advance(const hamiltonian *h, double scale, const double *near, double *far) {
    for (int64_t i = 0; i < h->sites; i++) {
        const spinor s = apply(h, near, i);
        vec *out = (vec *)at(far, i);
        for (int c = 0; c < 4; c++) out[c] = scale * s.part[c] - out[c];
    }
}

static double total(vec x) {
    double sum = 0;
    for (int r = 0; r < WIDTH; r++) sum += x[r];
    return sum;
}

// Where the probes of this group are not zero: the site, which pair of vectors (up, down) starts there, and its phase.
typedef struct {
    int64_t count;
    const int32_t *site, *pair;
    const double *phase;  // (count, 2)
} probes;

static void start(const probes *p, double *vectors, int64_t sites) {
    memset(vectors, 0, sizeof(double) * 4 * WIDTH * (sites + 1));
    for (int64_t k = 0; k < p->count; k++) {
        double *x = vectors + 4 * WIDTH * (int64_t)p->site[k] + 2 * p->pair[k];
        for (int part = 0; part < 2; part++) {
            x[part * WIDTH] = p->phase[2 * k + part];
            x[(2 + part) * WIDTH + 1] = p->phase[2 * k + part];
        }
    }
}

// Components tr(m), tr(sigma m) of the Hermitian part of m = (T_n v)_i v_i^H.
static void read_out(const probes *p, const double *vectors, double *moments) {
    for (int64_t k = 0; k < p->count; k++) {
        const double *x = vectors + 4 * WIDTH * (int64_t)p->site[k] + 2 * p->pair[k];
        const double c = p->phase[2 * k], s = p->phase[2 * k + 1];
        const double uu = c * x[0] + s * x[WIDTH], dd = c * x[2 * WIDTH + 1] + s * x[3 * WIDTH + 1];
        const double ud_re = c * x[1] + s * x[WIDTH + 1], ud_im = c * x[WIDTH + 1] - s * x[1];
        const double du_re = c * x[2 * WIDTH] + s * x[3 * WIDTH], du_im = c * x[3 * WIDTH] - s * x[2 * WIDTH];
        double *m = moments + 4 * k;
        m[0] = uu + dd;
        m[1] = ud_re + du_re;
        m[2] = du_im - ud_im;
        m[3] = uu - dd;
    }
}

// Moments of the sites where the probes are: moments (count, probes, 4). vectors: room for two.
void hpcspin_local_moments(const hamiltonian *h, const probes *p, int64_t count, double *vectors, double *moments) {
    const int64_t length = 4 * WIDTH * (h->sites + 1);
    double *near = vectors, *far = vectors + length;
    start(p, near, h->sites);
    memset(far, 0, sizeof(double) * length);
    for (int64_t n = 0; n < count; n++) {
        read_out(p, near, moments + 4 * p->count * n);
        if (n + 1 == count) break;
        advance(h, n ? 1 : 0.5, near, far);
        double *swap = near;
        near = far, far = swap;
    }
}

// Moments sum_v <v|T_n|v> for n < 2 steps, from products of the vectors on half of the way; what the way back starts from
// stays in vectors: a_{steps - 1} and a_{steps}, in this order where steps is odd.
void hpcspin_total_moments(const hamiltonian *h, const probes *p, int64_t steps, double *vectors, double *moments) {
    const int64_t length = 4 * WIDTH * (h->sites + 1);
    double *near = vectors, *far = vectors + length;
    start(p, near, h->sites);
    memset(far, 0, sizeof(double) * length);
    for (int64_t n = 0; n < steps; n++) {
        const double scale = n ? 1 : 0.5;
        vec same = {0}, next = {0};
        for (int64_t i = 0; i < h->sites; i++) {
            const spinor s = apply(h, near, i);
            const vec *x = at(near, i);
            vec *out = (vec *)at(far, i);
            for (int c = 0; c < 4; c++) {
                out[c] = scale * s.part[c] - out[c];
                same += x[c] * x[c];
                next += x[c] * out[c];
            }
        }
        moments[2 * n] = n ? 2 * total(same) - moments[0] : total(same);
        moments[2 * n + 1] = n ? 2 * total(next) - moments[1] : total(next);
        double *swap = near;
        near = far, far = swap;
    }
}

// Derivative of sum_n w_n <v|T_n|v> by the on-site blocks of H~, added to gradient (sites, 4), by the reverse of the
// recursion. With even[n] and odd[n] the weights of <a_n|a_n> and Re <a_n|a_{n+1}> in that sum,
//
//     l_n = 2 even[n] a_n + odd[n] a_{n+1} + odd[n-1] a_{n-1} + 2 H~ l_{n+1} - l_{n+2},
//     gradient_i = sum_n (2 - delta_{n0}) Re <l_{n+1}| 1, sigma |a_n>_i.
//
// vectors: what hpcspin_total_moments has left; room: for two more.
void hpcspin_gradient(const hamiltonian *h, int64_t steps, const double *even, const double *odd, double *vectors,
                      double *room, double *gradient) {
    const int64_t length = 4 * WIDTH * (h->sites + 1);
    double *near = vectors + (steps % 2 ? 0 : length), *far = vectors + (steps % 2 ? length : 0);
    double *later = room, *latest = room + length;
    memset(room, 0, 2 * sizeof(double) * length);
    for (int64_t i = 0; i < h->sites; i++)
        for (int c = 0; c < 4; c++) ((vec *)at(later, i))[c] = odd[steps - 1] * at(near, i)[c];
    for (int64_t n = steps - 1; n >= 0; n--) {
        for (int64_t i = 0; i < h->sites; i++) {
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
        double *swap = near;
        near = far, far = swap;
        swap = later;
        later = latest, latest = swap;
    }
}
