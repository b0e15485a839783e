/* One sweep of the cavity Green's functions of some sites (`CavityFunctions`), for single precision on a CPU.
 *
 * A Green's function a + b·σ is eight numbers, the real and then the imaginary parts of a and b; energies lie side by
 * side, LANES to a vector. A site goes through the same operations in the same order wherever it stands.
 */
#include <stdint.h>

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
 * PARTS, LANES), to their own without each of the neighbours, or, if `whole`, to their own, (rows + 1, blocks, PARTS,
 * LANES). `spins` is (rows + 1, 3), zero where a site is missing, whose functions are left alone; `nearest` (rows,
 * slots); `width` the level width of each row.
 */
void hpcspin_cavity(const cavity *c, const float *spins, const int32_t *nearest, const float *width,
                    const float *known, int64_t first, int64_t last, int32_t whole, float *made) {
    const int64_t size = PARTS * LANES, site = c->blocks * size;
    for (int64_t row = first; row < last; row++) {
        const float *s = spins + 3 * row;
        if (s[0] * s[0] + s[1] * s[1] + s[2] * s[2] < 0.5f) continue;
        for (int block = 0; block < c->blocks; block++) {
            const float *from[MOST_SLOTS];
            vec left[PARTS], without[PARTS];
            surroundings(c, s, c->energies + 2 * block * LANES, width[row], nearest + row * c->slots,
                         known + block * size, site, left, from);
            if (whole) {
                inverse(left, made + row * site + block * size);
                continue;
            }
            for (int n = 0; n < c->slots; n++) {
#pragma GCC unroll 8
                for (int i = 0; i < PARTS; i++) without[i] = left[i] + *(const vec *)(from[n] + i * LANES);
                inverse(without, made + (row * c->slots + n) * site + block * size);
            }
        }
    }
}
