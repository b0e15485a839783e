/* One sweep of the cavity Green's functions of some sites (`CavityFunctions`), for single precision on a CPU.
 *
 * A Green's function a + b·σ is eight numbers, the real and then the imaginary parts of a and b; energies lie side by
 * side, LANES to a vector. A site goes through the same operations in the same order wherever it stands.
 */
#include <stdint.h>
#include <string.h>

#define LANES 8 /* Energies of a vector: there are seldom more. */
#define PARTS 8
#define MOST_SLOTS 8
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));

typedef struct {
    int32_t slots, blocks;     /* neighbours of a site; vectors of energies */
    const int32_t *opposite;   /* of each slot: in which one the neighbour has the site */
    const float *energies;     /* real and imaginary parts, (blocks, 2, LANES) */
    float exchange;            /* J */
} cavity;

INLINE vec all(float x) { return x - (vec){}; }
INLINE int present(const float *s) { return s[0] * s[0] + s[1] * s[1] + s[2] * s[2] > 0.5f; }

/* (a + b·σ)^-1 = (a - b·σ) / (a² - b·b). */
INLINE void inverse(const vec m[PARTS], float *out) {
    vec re = m[0] * m[0] - m[4] * m[4], im = m[0] * m[4];
#pragma GCC unroll 3
    for (int i = 1; i < 4; i++) {
        re -= m[i] * m[i] - m[4 + i] * m[4 + i];
        im -= m[i] * m[4 + i];
    }
    im += im;
    vec scale = 1.0f / (re * re + im * im);
    re *= scale;
    im *= -scale;
    *(vec *)out = m[0] * re - m[4] * im;
    *(vec *)(out + 4 * LANES) = m[0] * im + m[4] * re;
#pragma GCC unroll 3
    for (int i = 1; i < 4; i++) {
        *(vec *)(out + i * LANES) = m[4 + i] * im - m[i] * re;
        *(vec *)(out + (4 + i) * LANES) = -m[i] * im - m[4 + i] * re;
    }
}

/* One vector of energies of a site: what is left of z - H after the hopping to all neighbours, and where from. */
INLINE void surroundings(const cavity *c, const float *s, const float *z, float width, const int32_t *nearest,
                         const float *known, int64_t site, vec left[PARTS], const float *from[MOST_SLOTS]) {
    left[0] = *(const vec *)z;
    left[4] = *(const vec *)(z + LANES) + width;
    for (int i = 1; i < 4; i++) {
        left[i] = all(c->exchange * s[i - 1]);
        left[4 + i] = all(0);
    }
    for (int n = 0; n < c->slots; n++) {
        from[n] = known + (nearest[n] * (int64_t)c->slots + c->opposite[n]) * site;
#pragma GCC unroll 8
        for (int i = 0; i < PARTS; i++) left[i] -= *(const vec *)(from[n] + i * LANES);
    }
}

/* Sites first to last - 1: from the Green's functions of their neighbours without them, (rows + 1, slots, blocks,
 * PARTS, LANES), to their own without each of the neighbours. `spins` is (rows + 1, 3), zero where a site is missing,
 * whose functions are left alone; `nearest` (rows, slots); `width` the level width of each row.
 */
void hpcspin_cavity(const cavity *c, const float *spins, const int32_t *nearest, const float *width,
                    const float *known, int64_t first, int64_t last, float *made) {
    const int64_t size = PARTS * LANES, site = c->blocks * size;
    for (int64_t row = first; row < last; row++) {
        if (!present(spins + 3 * row)) continue;
        for (int block = 0; block < c->blocks; block++) {
            const float *from[MOST_SLOTS];
            vec left[PARTS], without[PARTS];
            surroundings(c, spins + 3 * row, c->energies + 2 * block * LANES, width[row], nearest + row * c->slots,
                         known + block * size, site, left, from);
            for (int n = 0; n < c->slots; n++) {
#pragma GCC unroll 8
                for (int i = 0; i < PARTS; i++) without[i] = left[i] + *(const vec *)(from[n] + i * LANES);
                inverse(without, made + (row * c->slots + n) * site + block * size);
            }
        }
    }
}

/* And to what a field is told of them: vectors (rows, 3, 1 + 2 number), the spin first, and scalars (rows, 1 +
 * 2 number), of which the first says whether there is a spin; of the others the real and then the imaginary parts of all
 * `number` energies. `means` and `scales` are (2, 2 number), of scalars and of vectors.
 */
void hpcspin_cavity_told(const cavity *c, const float *spins, const int32_t *nearest, const float *width,
                         const float *known, int64_t first, int64_t last, int32_t number, const float *means,
                         const float *scales, float *vectors, float *scalars) {
    const int64_t size = PARTS * LANES, site = c->blocks * size, all_of = 1 + 2 * (int64_t)number;
    for (int64_t row = first; row < last; row++) {
        const float *s = spins + 3 * row;
        float *v = vectors + 3 * row * all_of, *u = scalars + row * all_of;
        memset(v, 0, 3 * all_of * sizeof(float));
        memset(u, 0, all_of * sizeof(float));
        if (!present(s)) continue;
        u[0] = 1;
        for (int i = 0; i < 3; i++) v[i * all_of] = s[i];
        for (int block = 0; block < c->blocks; block++) {
            const float *from[MOST_SLOTS];
            float g[PARTS * LANES];
            vec left[PARTS];
            surroundings(c, s, c->energies + 2 * block * LANES, width[row], nearest + row * c->slots,
                         known + block * size, site, left, from);
            inverse(left, g);
            for (int part = 0; part < 2; part++)
                for (int e = block * LANES; e < number && e < (block + 1) * LANES; e++) {
                    const float *mine = g + 4 * part * LANES + e - block * LANES;
                    const int64_t at = part * number + e, vector = 2 * number + at;
                    u[1 + at] = (mine[0] - means[at]) * scales[at];
                    for (int i = 0; i < 3; i++)
                        v[i * all_of + 1 + at] = (mine[(1 + i) * LANES] - s[i] * means[vector]) * scales[vector];
                }
        }
    }
}
