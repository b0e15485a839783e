// One energy per thread block: right-connected recursion over the columns of sites, then the electrode's column.
//
// In units of the hopping (see recursion.py),
//
//     u_x = [(H_x - z)/t - W u_{x+1} W^H]^-1,     Y_0 = u_0 K,     Y_x = u_x W^H Y_{x-1},
//
// and the sweep returns only the on-site components of Y_x w Y_x^H and of i(u_0 - u_0^H). A block is held in
// registers while it is inverted, in tiles of TILE x TILE by a SIDE x SIDE square of threads (thread (r, c) holds
// rows r + SIDE a and columns c + SIDE b), and in shared memory between the columns of sites. Only u_x is stored in
// device memory, written once and read once.
//
// Compile-time: REAL (double, float), M (orbitals of a column, 2 Ly), SIDE, PANEL, TRIANGULAR, PERIODIC, FLIPPED.

#define TILE ((M + SIDE - 1) / SIDE)
#define PADDED (SIDE * TILE)
#define THREADS (SIDE * SIDE)
#define STRIDE (M + 1)  // of rows in shared memory: elements of a column then fall on different banks
#define LANES 32
// Thread blocks per multiprocessor; 0 leaves it to the compiler, which would rather spill than have two with this W.
#define RESIDENT (TRIANGULAR && TILE == 3 ? 2 : 0)
#define ROWS 128u  // a power of two, at least M

struct cplx {
    REAL x, y;
};

static __device__ inline cplx operator+(cplx a, cplx b) { return {a.x + b.x, a.y + b.y}; }
static __device__ inline cplx operator-(cplx a, cplx b) { return {a.x - b.x, a.y - b.y}; }
static __device__ inline cplx operator*(cplx a, cplx b) { return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x}; }
// sum += a b, by two fused multiply-adds per component.
static __device__ inline void add_product(cplx &sum, cplx a, cplx b) {
    sum.x += a.x * b.x;
    sum.y += a.x * b.y;
    sum.x -= a.y * b.y;
    sum.y += a.y * b.x;
}
static __device__ inline cplx operator-(cplx a) { return {-a.x, -a.y}; }

// 1/a without overflow of |a|^2 (Smith's division).
static __device__ inline cplx reciprocal(cplx a) {
    if ((a.x < 0 ? -a.x : a.x) >= (a.y < 0 ? -a.y : a.y)) {
        REAL ratio = a.y / a.x, scale = 1 / (a.x + a.y * ratio);
        return {scale, -ratio * scale};
    }
    REAL ratio = a.x / a.y, scale = 1 / (a.x * ratio + a.y);
    return {ratio * scale, -scale};
}

struct Shared {
    cplx *block;   // (M, STRIDE): u_{x+1}, later Y
    cplx *panel;   // (M, PANEL + 1): a part of u_x
    cplx *column;  // (2, PADDED): the pivot's column, of this step and of the one before
    cplx *row;     // (PADDED): the pivot's row
    int *pivot;    // (M): pivot row of each step
    int *step;     // (M): step at which each row was the pivot, -1 before
};

static __device__ inline Shared carve(char *memory) {
    Shared s;
    s.block = (cplx *)memory;
    s.panel = s.block + M * STRIDE;
    s.column = s.panel + M * (PANEL + 1);
    s.row = s.column + 2 * PADDED;
    s.pivot = (int *)(s.row + PADDED);
    s.step = s.pivot + M;
    return s;
}

// Orbital that W adds to orbital i (W = 1 + P, row i of P has its one there), or -1.
// down: W^H instead. The spin, which is the parity of i, does not change.
static __device__ inline int neighbour(int i, int down) {
    int moved = (down != FLIPPED) ? i + 2 : i - 2;
    if (moved >= 0 && moved < M) return moved;
    return PERIODIC ? (moved + M) % M : -1;
}

// Element (i, j) of W X W^H.
static __device__ inline cplx wrapped(const cplx *x, int i, int j) {
    cplx sum = x[i * STRIDE + j];
    if (TRIANGULAR) {
        int k = neighbour(i, 0), l = neighbour(j, 0);
        if (k >= 0) sum = sum + x[k * STRIDE + j];
        if (l >= 0) sum = sum + x[i * STRIDE + l];
        if (k >= 0 && l >= 0) sum = sum + x[k * STRIDE + l];
    }
    return sum;
}

// Row of the largest element of a column among the rows that have not been a pivot. Every warp finds it for itself, in
// one reduction: positive floats are ordered as their bits are, NaN above all, and the lowest bits are replaced by the
// row.
static __device__ inline int find_pivot(const cplx *column, const int *step) {
    unsigned largest = 0;
    for (int i = threadIdx.x % LANES; i < M; i += LANES)
        if (step[i] < 0) {
            const REAL x = column[i].x, y = column[i].y;
            const unsigned key = __float_as_uint((float)((x < 0 ? -x : x) + (y < 0 ? -y : y)));
            const unsigned candidate = (key & ~(ROWS - 1)) | i;
            if (candidate > largest) largest = candidate;
        }
    return __reduce_max_sync(0xffffffffu, largest) & (ROWS - 1);
}

// Gauss-Jordan elimination in place, with partial pivoting but without moving rows: step k exchanges unknown k with
// equation pivot[k], so that tile element (i, l) becomes element (step[i], pivot[l]) of the inverse. One call does the
// steps whose columns are at index B of their threads' tiles: a template, since registers have no run-time index.
// A pivot of zero gives only numbers that are not finite.
template <int B>
static __device__ inline void eliminate(cplx (&tile)[TILE][TILE], Shared s) {
    const int r = threadIdx.x / SIDE, c = threadIdx.x % SIDE;
    for (int owner = 0; owner < SIDE && B * SIDE + owner < M; owner++) {
        const int k = B * SIDE + owner;
        cplx *column = s.column + (k % 2) * PADDED;
        if (c == owner) {
#pragma unroll
            for (int a = 0; a < TILE; a++) {
                column[r + SIDE * a] = tile[a][B];
                tile[a][B] = {0, 0};
            }
        }
        __syncthreads();
        const int p = find_pivot(column, s.step);
        if (r == p % SIDE) {
            const cplx inverse = reciprocal(column[p]);
#pragma unroll
            for (int d = 0; d < TILE; d++) {
                cplx own = {0, 0};
#pragma unroll
                for (int a = 0; a < TILE; a++)
                    if (a == p / SIDE) {
                        own = tile[a][d];
                        tile[a][d] = {0, 0};
                    }
                s.row[c + SIDE * d] = (c + SIDE * d == k) ? inverse : own * inverse;
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            s.pivot[k] = p;
            s.step[p] = k;
        }
        cplx factor[TILE];
#pragma unroll
        for (int a = 0; a < TILE; a++) factor[a] = (r + SIDE * a == p) ? cplx{1, 0} : -column[r + SIDE * a];
#pragma unroll
        for (int d = 0; d < TILE; d++) {
            const cplx scaled = s.row[c + SIDE * d];
#pragma unroll
            for (int a = 0; a < TILE; a++) add_product(tile[a][d], factor[a], scaled);
        }
    }
    if constexpr (B + 1 < TILE)
        eliminate<B + 1>(tile, s);
    else
        __syncthreads();
}

// Y <- U V with V = Y, or W^H Y where down is set. U is in device memory.
static __device__ inline void multiply(const cplx *u, Shared s, bool down) {
    const int r = threadIdx.x / SIDE, c = threadIdx.x % SIDE;
    cplx sum[TILE][TILE];
#pragma unroll
    for (int a = 0; a < TILE; a++)
#pragma unroll
        for (int b = 0; b < TILE; b++) sum[a][b] = {0, 0};
    for (int start = 0; start < M; start += PANEL) {
        const int width = (M - start < PANEL) ? M - start : PANEL;
#pragma unroll 1  // leaves registers for a third thread block per multiprocessor at M = 48
        for (int e = threadIdx.x; e < M * PANEL; e += THREADS) {
            const int i = e / PANEL, k = e % PANEL;
            if (k < width) s.panel[i * (PANEL + 1) + k] = u[i * M + start + k];
        }
        __syncthreads();
        for (int k = 0; k < width; k++) {
            const int row = start + k, other = (TRIANGULAR && down) ? neighbour(row, 1) : -1;
            cplx left[TILE];
#pragma unroll
            for (int a = 0; a < TILE; a++) {
                const int i = r + SIDE * a;
                left[a] = (i < M) ? s.panel[i * (PANEL + 1) + k] : cplx{0, 0};
            }
#pragma unroll
            for (int b = 0; b < TILE; b++) {
                const int j = c + SIDE * b;
                if (j >= M) continue;
                cplx right = s.block[row * STRIDE + j];
                if (other >= 0) right = right + s.block[other * STRIDE + j];
#pragma unroll
                for (int a = 0; a < TILE; a++) add_product(sum[a][b], left[a], right);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int a = 0; a < TILE; a++)
#pragma unroll
        for (int b = 0; b < TILE; b++) {
            const int i = r + SIDE * a, j = c + SIDE * b;
            if (i < M && j < M) s.block[i * STRIDE + j] = sum[a][b];
        }
    __syncthreads();
}

// Components tr(B), tr(sigma B) of a Hermitian 2x2 block.
static __device__ inline void write_site(double *out, double up, double down, double re, double im) {
    out[0] = up + down;
    out[1] = 2 * re;
    out[2] = -2 * im;
    out[3] = up - down;
}

// Components of Y w Y^H on every site, summed in double precision; one warp per site.
static __device__ inline void occupations(const cplx *y, const double *weights, const int *groups, double *out) {
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    for (int first = 0; first < M / 2; first += THREADS / LANES) {
        const int site = first + warp;
        double up = 0, down = 0, re = 0, im = 0;
        for (int j = lane; j < M && site < M / 2; j += LANES) {
            const cplx a = y[2 * site * STRIDE + j], b = y[(2 * site + 1) * STRIDE + j];
            const double weight = weights[groups[j]];
            up += weight * ((double)a.x * a.x + (double)a.y * a.y);
            down += weight * ((double)b.x * b.x + (double)b.y * b.y);
            re += weight * ((double)a.x * b.x + (double)a.y * b.y);
            im += weight * ((double)a.y * b.x - (double)a.x * b.y);
        }
        for (int distance = LANES / 2; distance > 0; distance /= 2) {
            up += __shfl_xor_sync(0xffffffffu, up, distance);
            down += __shfl_xor_sync(0xffffffffu, down, distance);
            re += __shfl_xor_sync(0xffffffffu, re, distance);
            im += __shfl_xor_sync(0xffffffffu, im, distance);
        }
        if (lane == 0 && site < M / 2) write_site(out + 4 * site, up, down, re, im);
    }
}

// blocks (snapshots, columns, M, M), energies (batch), owners (batch): snapshot of each energy,
// source K (M, M), groups (M): group of each column of K, weights (batch, count),
// work (gridDim, columns, M, M); out: response (batch, columns, M/2, 4), spectral (batch, M/2, 4).
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) sweep(
    const cplx *blocks, const cplx *energies, const long long *owners, const cplx *source, const int *groups,
    const double *weights, int count, int columns, int batch, cplx *work, double *response, double *spectral) {
    extern __shared__ __align__(16) char memory[];
    const Shared s = carve(memory);
    const int r = threadIdx.x / SIDE, c = threadIdx.x % SIDE;
    cplx *connected = work + (long long)blockIdx.x * columns * M * M;
    for (int e = blockIdx.x; e < batch; e += gridDim.x) {
        const cplx z = energies[e], *block = blocks + owners[e] * columns * M * M;
        for (int x = columns - 1; x >= 0; x--) {
            for (int i = threadIdx.x; i < M; i += THREADS) s.step[i] = -1;
            cplx tile[TILE][TILE];
#pragma unroll
            for (int a = 0; a < TILE; a++)
#pragma unroll
                for (int b = 0; b < TILE; b++) {
                    const int i = r + SIDE * a, j = c + SIDE * b;
                    tile[a][b] = {0, 0};
                    if (i >= M || j >= M) continue;
                    tile[a][b] = block[(x * M + i) * M + j];
                    if (i == j) tile[a][b] = tile[a][b] - z;
                    if (x + 1 < columns) tile[a][b] = tile[a][b] - wrapped(s.block, i, j);
                }
            eliminate<0>(tile, s);
#pragma unroll
            for (int a = 0; a < TILE; a++)
#pragma unroll
                for (int b = 0; b < TILE; b++) {
                    const int i = r + SIDE * a, j = c + SIDE * b;
                    if (i < M && j < M) s.block[s.step[i] * STRIDE + s.pivot[j]] = tile[a][b];
                }
            __syncthreads();
            for (int k = threadIdx.x; k < M * M; k += THREADS)
                connected[x * M * M + k] = s.block[k / M * STRIDE + k % M];
        }
        for (int y = threadIdx.x; y < M / 2; y += THREADS) {
            const cplx uu = s.block[2 * y * STRIDE + 2 * y], ud = s.block[2 * y * STRIDE + 2 * y + 1];
            const cplx du = s.block[(2 * y + 1) * STRIDE + 2 * y], dd = s.block[(2 * y + 1) * STRIDE + 2 * y + 1];
            // i(u - u^H): its upper right element is i(ud - du*).
            write_site(spectral + (e * (M / 2) + y) * 4, -2.0 * uu.y, -2.0 * dd.y, -((double)ud.y + du.y),
                       (double)ud.x - du.x);
        }
        __syncthreads();
        for (int k = threadIdx.x; k < M * M; k += THREADS) s.block[k / M * STRIDE + k % M] = source[k];
        for (int x = 0; x < columns; x++) {
            multiply(connected + x * M * M, s, x > 0);
            occupations(s.block, weights + e * count, groups, response + ((long long)e * columns + x) * (M / 2) * 4);
        }
    }
}
