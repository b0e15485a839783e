/* One layer of a field of several layers (`Layer.forward`) on some centres, for single precision on a CPU.
 *
 * A centre's numbers lie side by side, LANES to a vector; nothing is gathered, since a neighbour's numbers are
 * broadcast from where they lie. A centre goes through the same operations in the same order wherever it stands and
 * whoever computes it. Matrices are padded with zeros to whole vectors, and each pair of vectors of columns knows
 * between which rows it is not zero.
 */
#include <stdint.h>
#include <string.h>

/* Numbers of a vector, and rows that share a load of weights: two vectors for each of them stay in registers. */
#if defined(__AVX512F__)
#define LANES 16
#define ROWS 12
#elif defined(__AVX__)
#define LANES 8
#define ROWS 6
#elif defined(__aarch64__)
#define LANES 4
#define ROWS 12
#else
#define LANES 4
#define ROWS 6
#endif
#define PAIR (2 * LANES)
#define BLOCK 12 /* Centres whose intermediate numbers stay in the first cache. */
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));

/* A matrix of `pairs` pairs of vectors of columns, of which pair p begins at `at[p]` and has rows from[p] to to[p]. */
typedef struct {
    const float *numbers;
    const int32_t *from, *to, *at;
    int32_t pairs;
} matrix;

typedef struct {
    int32_t slots, vectors, scalars, own_scalars; /* read; own_scalars: whether a centre's own are features, too */
    int32_t densities, groups, trivial;           /* padded densities; groups of products; padded own products */
    int32_t products, sums;                       /* padded products of a group; padded vectors made */
    int32_t made_vectors, made_scalars, inputs, hidden_layers;
    const int32_t *feature_of;                    /* of each group: where its products are added */
    const float *kernels, *scalar_kernels;        /* (slots, vectors, densities), (slots, scalars, padded scalars) */
    matrix mixtures;
    const matrix *network;                        /* hidden_layers + 1 of them */
    const float *const *biases;                   /* of the hidden layers */
    int32_t features, widest, padded_scalars, product_features;
} layer;

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }
INLINE vec all(float x) { return x - (vec){}; }
INLINE vec choose(ivec which, vec yes, vec no) { return (vec)((which & (ivec)yes) | (~which & (ivec)no)); }

/* out[r][...] = x[r][...] times the matrix, for `rows` rows, a multiple of ROWS. */
INLINE void product(const float *x, int64_t stride, int rows, const matrix *m, float *out, int64_t width) {
    for (int p = 0; p < m->pairs; p++) {
        const float *numbers = m->numbers + m->at[p];
        for (int r = 0; r < rows; r += ROWS) {
            vec sum[ROWS][2] = {};
            const float *w = numbers, *row = x + r * stride;
            for (int k = m->from[p]; k < m->to[p]; k++, w += PAIR) {
                vec left = load(w), right = load(w + LANES);
                for (int i = 0; i < ROWS; i++) {
                    vec value = all(row[i * stride + k]);
                    sum[i][0] += value * left;
                    sum[i][1] += value * right;
                }
            }
            for (int i = 0; i < ROWS; i++) {
                store(out + (r + i) * width + p * PAIR, sum[i][0]);
                store(out + (r + i) * width + p * PAIR + LANES, sum[i][1]);
            }
        }
    }
}

/* Densities of ROWS / 3 centres, three components each: sums over slots and vectors of what lies in their rows. */
INLINE void densities(const layer *l, const float *vectors, const int32_t *table, float *out) {
    const int64_t width = l->vectors, n = l->densities;
    for (int p = 0; p < n; p += PAIR) {
        vec sum[ROWS][2] = {};
        for (int slot = 0; slot < l->slots; slot++) {
            const float *row[ROWS / 3], *w = l->kernels + slot * width * n + p;
            for (int c = 0; c < ROWS / 3; c++) row[c] = vectors + table[c * l->slots + slot] * 3 * width;
            for (int k = 0; k < width; k++, w += n) {
                vec left = load(w), right = load(w + LANES);
                for (int i = 0; i < ROWS; i++) {
                    vec value = all(row[i / 3][i % 3 * width + k]);
                    sum[i][0] += value * left;
                    sum[i][1] += value * right;
                }
            }
        }
        for (int i = 0; i < ROWS; i++) {
            store(out + i * n + p, sum[i][0]);
            store(out + i * n + p + LANES, sum[i][1]);
        }
    }
}

/* Sums of scalars over the slots of BLOCK centres. */
INLINE void scalar_sums(const layer *l, const float *scalars, const int32_t *table, float *out, int64_t stride) {
    const int64_t n = l->padded_scalars;
    for (int p = 0; p < n; p += LANES) {
        vec sum[BLOCK] = {};
        for (int slot = 0; slot < l->slots; slot++) {
            const float *w = l->scalar_kernels + slot * l->scalars * n + p;
            for (int k = 0; k < l->scalars; k++, w += n) {
                vec weight = load(w);
                for (int i = 0; i < BLOCK; i++)
                    sum[i] += all(scalars[table[i * l->slots + slot] * (int64_t)l->scalars + k]) * weight;
            }
        }
        for (int i = 0; i < BLOCK; i++) store(out + i * stride + p, sum[i]);
    }
}

/* exp by 2^n times a polynomial: relative error 1e-7. */
INLINE vec exponential(vec x) {
    x = choose(x > 87.0f, all(87.0f), x);
    x = choose(x < -87.0f, all(-87.0f), x);
    const vec rounding = all(12582912.0f); /* 1.5 * 2^23: adding it leaves the nearest integer in the last bits */
    vec shifted = x * 1.44269504f + rounding, n = shifted - rounding;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec bits = (((ivec)shifted - 0x4B400000) + 127) << 23;
    return p * (vec)bits;
}

INLINE void activate(float *x, const float *bias, int width) {
    for (int k = 0; k < width; k += LANES) {
        vec v = load(x + k) + load(bias + k);
        store(x + k, v / (1.0f + exponential(-v)));
    }
}

/* S x v of one centre, LANES vectors at a time, whose components are `apart` numbers from each other. */
INLINE void cross(const float *s, const float *v, int64_t apart, vec out[3]) {
    vec x = load(v), y = load(v + apart), z = load(v + 2 * apart);
    out[0] = s[1] * z - s[2] * y;
    out[1] = s[2] * x - s[0] * z;
    out[2] = s[0] * y - s[1] * x;
}

INLINE vec dot(const float *a, const float *b, int64_t apart) {
    return load(a) * load(b) + load(a + apart) * load(b + apart) + load(a + 2 * apart) * load(b + 2 * apart);
}

/* What the network sees of one centre, from its densities (3, densities) and mixtures (3, columns). */
INLINE void features(const layer *l, const float *spin, const float *density, const float *mixed, int64_t columns,
                     const float *own, const float *inputs, float *out) {
    const int64_t n = l->densities, np = l->products;
    for (int k = 0; k < l->trivial; k += LANES)
        store(out + k, spin[0] * load(density + k) + spin[1] * load(density + n + k) + spin[2] * load(density + 2 * n + k));
    float *dots = out + l->trivial, *triples = dots + l->product_features;
    memset(dots, 0, 2 * l->product_features * sizeof(float));
    for (int g = 0; g < l->groups; g++) {
        const float *p = mixed + 4 * g * np, *q = p + np, *u = q + np, *v = u + np;
        for (int k = 0; k < np; k += LANES) {
            float *sum = dots + l->feature_of[g] + k, *turned = triples + l->feature_of[g] + k;
            store(sum, load(sum) + dot(p + k, q + k, columns));
            vec c[3];
            cross(spin, u + k, columns, c);
            vec t = c[0] * load(v + k) + c[1] * load(v + columns + k) + c[2] * load(v + 2 * columns + k);
            store(turned, load(turned) + t);
        }
    }
    float *rest = triples + l->product_features + l->padded_scalars;
    if (l->own_scalars) {
        memcpy(rest, own, l->scalars * sizeof(float));
        rest += l->scalars;
    }
    memcpy(rest, inputs, l->inputs * sizeof(float));
}

/* New vectors and scalars of one centre, with what was known of it already. */
INLINE void finish(const layer *l, const float *spin, const float *sums, int64_t columns, const float *said,
                   const float *known, const float *known_scalars, float *vectors, float *scalars) {
    const int n = l->made_vectors;
    const int present = spin[0] * spin[0] + spin[1] * spin[1] + spin[2] * spin[2] > 0.5f;
    const float *straight = said, *turned = said + l->sums, *told = said + 2 * l->sums;
    for (int k = 0; k < n; k += LANES) {
        vec c[3];
        cross(spin, sums + l->sums + k, columns, c);
        for (int i = 0; i < 3; i++) {
            vec made = load(straight + k) * load(sums + i * columns + k) + load(turned + k) * c[i];
            float *out = vectors + i * (1 + n) + 1;
            for (int j = k; j < n && j < k + LANES; j++)
                out[j] = (present ? made[j - k] : 0.0f) + (known ? known[i * (1 + n) + 1 + j] : 0.0f);
        }
    }
    for (int i = 0; i < 3; i++) vectors[i * (1 + n)] = spin[i];
    for (int j = 0; j < l->made_scalars; j++)
        scalars[j] = (present ? told[j] : 0.0f) + (known_scalars ? known_scalars[j] : 0.0f);
}

/* Centres first to last - 1; `table` has BLOCK more of them after the last one.
 *
 * vectors (rows + 1, 3, vectors), the spin first, and scalars (rows + 1, scalars) are what is known; new ones go to the
 * rows of the centres, table[...][0]. `adds` says whether to what is known. `inputs` is (centres, inputs). `scratch`
 * has room for `hpcspin_layer_scratch` numbers.
 */
void hpcspin_layer(const layer *l, const float *vectors, const float *scalars, const int32_t *table,
                   const float *inputs, int64_t first, int64_t last, int32_t adds, float *new_vectors,
                   float *new_scalars, float *scratch) {
    const int64_t n = l->densities, columns = (int64_t)l->mixtures.pairs * PAIR, row = 3 * (int64_t)l->vectors;
    float *density = scratch, *mixed = density + 3 * BLOCK * n, *seen = mixed + 3 * BLOCK * columns;
    float *x = seen + BLOCK * l->features, *y = x + BLOCK * l->widest;
    memset(seen, 0, BLOCK * l->features * sizeof(float));
    for (int64_t start = first; start < last; start += BLOCK) {
        const int32_t *mine = table + start * l->slots;
        const int64_t left = last - start, count = left < BLOCK ? left : BLOCK;
        for (int i = 0; i < BLOCK; i += ROWS / 3)
            densities(l, vectors, mine + i * l->slots, density + 3 * i * n);
        product(density, n, 3 * BLOCK, &l->mixtures, mixed, columns);
        scalar_sums(l, scalars, mine, seen + l->trivial + 2 * l->product_features, l->features);
        for (int i = 0; i < count; i++) {
            const int64_t at = mine[i * l->slots];
            float spin[3] = {vectors[at * row], vectors[at * row + l->vectors], vectors[at * row + 2 * l->vectors]};
            features(l, spin, density + 3 * i * n, mixed + 3 * i * columns, columns, scalars + at * l->scalars,
                     inputs + (start + i) * l->inputs, seen + i * l->features);
        }
        const float *from = seen;
        int64_t width = l->features;
        for (int layer_number = 0; layer_number <= l->hidden_layers; layer_number++) {
            const matrix *m = &l->network[layer_number];
            float *to = layer_number % 2 ? y : x;
            product(from, width, BLOCK, m, to, l->widest);
            if (layer_number < l->hidden_layers)
                for (int i = 0; i < BLOCK; i++) activate(to + i * l->widest, l->biases[layer_number], m->pairs * PAIR);
            from = to;
            width = l->widest;
        }
        for (int i = 0; i < count; i++) {
            const int64_t at = mine[i * l->slots];
            const float *known = vectors + at * row;
            float spin[3] = {known[0], known[l->vectors], known[2 * l->vectors]};
            finish(l, spin, mixed + 3 * i * columns + 4 * l->groups * l->products, columns, from + i * l->widest,
                   adds ? known : 0, adds && l->made_scalars ? scalars + at * l->scalars : 0,
                   new_vectors + at * 3 * (1 + l->made_vectors), new_scalars + at * l->made_scalars);
        }
    }
}

int64_t hpcspin_layer_scratch(const layer *l) {
    return BLOCK * (3 * (l->densities + (int64_t)l->mixtures.pairs * PAIR) + l->features + 2 * (int64_t)l->widest);
}

int64_t hpcspin_lanes(void) { return LANES; }
