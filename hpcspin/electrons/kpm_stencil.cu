// Chebyshev recursion on a GPU: one launch per step of all vectors, one thread per site and vector.
//
// Arrays of vectors have shape (rows, 2, WIDTH), complex: the sites of this rank, those received from other ranks, and
// a last row, which stays zero, for sites beyond open edges. Neighbouring threads have neighbouring vectors of the same
// site, so that their memory accesses coalesce. Threads do not communicate: the bits of a vector do not depend on
// others.
//
// Compile-time: WIDTH (vectors), TERMS (hopping terms), PLAIN (all their matrices are real multiples of the identity).

struct cplx {
    double x, y;
};

static __device__ inline void add_product(cplx &sum, cplx a, cplx b) {
    sum.x += a.x * b.x - a.y * b.y;
    sum.y += a.x * b.y + a.y * b.x;
}

struct spinor {
    cplx up, down;
};

// targets (TERMS, 2, sites): where each matrix and its adjoint lead; hopping (TERMS, 2, 2, 2): both matrices of each
// term; on_site (sites, 2, 2). All are those of 2 H~.
struct hamiltonian {
    const long long *targets;
    const cplx *hopping, *on_site;
    long long sites;
};

static __device__ inline spinor load(const cplx *vectors, long long site, int vector) {
    const cplx *first = vectors + 2 * WIDTH * site + vector;
    return {first[0], first[WIDTH]};
}

static __device__ inline void store(cplx *vectors, long long site, int vector, spinor value) {
    cplx *first = vectors + 2 * WIDTH * site + vector;
    first[0] = value.up;
    first[WIDTH] = value.down;
}

static __device__ inline void add_product(spinor &sum, const cplx *matrix, spinor x) {
    add_product(sum.up, matrix[0], x.up);
    add_product(sum.up, matrix[1], x.down);
    add_product(sum.down, matrix[2], x.up);
    add_product(sum.down, matrix[3], x.down);
}

static __device__ inline spinor apply(hamiltonian h, const cplx *vectors, long long site, int vector) {
    spinor sum = {{0, 0}, {0, 0}};
    for (int k = 0; k < TERMS; k++) {
        const spinor ahead = load(vectors, h.targets[2 * k * h.sites + site], vector);
        const spinor behind = load(vectors, h.targets[(2 * k + 1) * h.sites + site], vector);
        const cplx *matrix = h.hopping + 8 * k;
        if (PLAIN) {
            const double t = matrix[0].x;
            sum.up.x += t * (ahead.up.x + behind.up.x);
            sum.up.y += t * (ahead.up.y + behind.up.y);
            sum.down.x += t * (ahead.down.x + behind.down.x);
            sum.down.y += t * (ahead.down.y + behind.down.y);
        } else {
            add_product(sum, matrix, ahead);
            add_product(sum, matrix + 4, behind);
        }
    }
    add_product(sum, h.on_site + 4 * site, load(vectors, site, vector));
    return sum;
}

static __device__ inline cplx combined(double a, cplx x, double b, cplx y, double c, cplx z) {
    return {a * x.x + b * y.x + c * z.x, a * x.y + b * y.y + c * z.y};
}

// far <- scale 2 H~ near - far
extern "C" __global__ void advance(const long long *targets, const cplx *hopping, const cplx *on_site, long long sites,
                                   double scale, const cplx *near, cplx *far) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x, site = thread / WIDTH;
    const int vector = thread % WIDTH;
    if (site >= sites) return;
    const spinor s = apply({targets, hopping, on_site, sites}, near, site, vector), old = load(far, site, vector);
    store(far, site, vector,
          {{scale * s.up.x - old.up.x, scale * s.up.y - old.up.y},
           {scale * s.down.x - old.down.x, scale * s.down.y - old.down.y}});
}

// A step of the reverse sweep, from n > 0 (see kpm_recursion.py): with near = a_n, later = l_{n+1},
//
//     sums <- sums + 2 Re <later| 1, sigma |near>,     far: a_{n+1} -> a_{n-1},     latest: l_{n+2} -> l_n.
//
// sums has shape (sites, 4, WIDTH).
extern "C" __global__ void reverse(const long long *targets, const cplx *hopping, const cplx *on_site, long long sites,
                                   double even, double odd, double odd_before, const cplx *near, cplx *far,
                                   const cplx *later, cplx *latest, double *sums) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x, site = thread / WIDTH;
    const int vector = thread % WIDTH;
    if (site >= sites) return;
    const hamiltonian h = {targets, hopping, on_site, sites};
    const spinor a = load(near, site, vector), l = load(later, site, vector);
    double *sum = sums + 4 * WIDTH * site + vector;
    const double up = l.up.x * a.up.x + l.up.y * a.up.y, down = l.down.x * a.down.x + l.down.y * a.down.y;
    sum[0] += 2 * (up + down);
    sum[WIDTH] += 2 * (l.up.x * a.down.x + l.up.y * a.down.y + l.down.x * a.up.x + l.down.y * a.up.y);
    sum[2 * WIDTH] += 2 * (l.up.x * a.down.y - l.up.y * a.down.x - l.down.x * a.up.y + l.down.y * a.up.x);
    sum[3 * WIDTH] += 2 * (up - down);
    const spinor after = load(far, site, vector), back = apply(h, near, site, vector);
    const spinor before = {{back.up.x - after.up.x, back.up.y - after.up.y},
                           {back.down.x - after.down.x, back.down.y - after.down.y}};
    const spinor adjoint = apply(h, later, site, vector), old = load(latest, site, vector);
    spinor next = {combined(2 * even, a.up, odd, after.up, odd_before, before.up),
                   combined(2 * even, a.down, odd, after.down, odd_before, before.down)};
    next.up.x += adjoint.up.x - old.up.x;
    next.up.y += adjoint.up.y - old.up.y;
    next.down.x += adjoint.down.x - old.down.x;
    next.down.y += adjoint.down.y - old.down.y;
    store(far, site, vector, before);
    store(latest, site, vector, next);
}
