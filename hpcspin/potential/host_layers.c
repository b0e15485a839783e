/* One layer of a field of several layers (`Layer.forward`) for some centres, on a CPU, and its reverse sweep: in single
 * precision, or in double if DOUBLE is defined.
 *
 * The numbers of a centre are contiguous, LANES to a vector; nothing is gathered, since the numbers of a neighbour are
 * broadcast from their place in memory. The operations on a centre and their order do not depend on its position or on
 * the thread. Matrices are padded with zeros to whole vectors, and each strip of one or two vectors of columns stores
 * between which rows it is nonzero. Parts of a row follow each other without padding and are written from
 * left to right: what the last vector of a part writes beyond its end is overwritten by the next part, or never read.
 */
#include "host_vectors.h"

#include <string.h>

#define BLOCK 12 /* Centres whose intermediate results stay in the first-level cache. */

/* A matrix of `vectors` vectors of columns; strip p has vectors first[p] to first[p + 1] - 1, begins at numbers[at[p]] and
 * has rows from[p] to to[p] - 1. */
typedef struct {
    const real *numbers;
    const int32_t *first, *from, *to, *at;
    int32_t strips, vectors;
} matrix;

/* Copies of irreps in the orbits of slots. A sum over slots by kernels is one of products with `weights`, from the
 * numbers of a row to its projections (count, columns), over the members of each copy, slots members[starts[copy]] to
 * members[starts[copy + 1] - 1], times basis (members, sums). The columns from `doubles` on belong to irreps of dimension
 * two: their second sums follow the first ones. Without copies (0) kernels are used. */
typedef struct {
    int32_t count, columns, doubles;
    const int32_t *starts, *members;
    const real *basis;
    matrix weights; /* in the reverse sweep from projections back */
} copies;

typedef struct {
    int32_t slots, vectors, scalars, own_scalars; /* read; own_scalars: whether a centre's own are features */
    int32_t densities, scalar_sums;               /* both padded; the first density is the spin */
    int32_t trivial, irreps, products, scalar_features; /* numbers of S.A, irreps, products P.Q, sums of scalars */
    int32_t triples;                              /* products S.(P' x Q'): none if the layer is even, else as many */
    const int32_t *shares, *dimensions;           /* of each irrep: number of its products, and of its rows */
    const int32_t *places;                        /* (irreps, 2), first mixture of each row */
    int32_t out_vectors, out_scalars, inputs, hidden_layers;
    const real *kernels, *scalar_kernels;         /* (slots, vectors, densities), (slots, scalars, scalar_sums) */
    copies vector_copies, scalar_copies;          /* what replaces them */
    matrix mixtures;                              /* both sums; P, Q and, if not even, P', Q' of each irrep's first row, then of second rows */
    const matrix *network;                        /* hidden_layers + 1 of them */
    const real *const *biases;                    /* of the hidden layers, padded */
    int32_t features, widest;                     /* lengths of rows, with room for a vector */
} layer;

/* Columns of one strip, `wide` vectors, of ROWS rows. */
INLINE void strip(const real *x, int64_t stride, const real *w, int from, int to, real *out, int64_t width, int wide) {
    vec sum[ROWS][2] = {};
    for (int k = from; k < to; k++, w += wide * LANES) {
        vec weights[2] = {load(w), load(w + (wide - 1) * LANES)};
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < wide; j++) sum[i][j] += all(x[i * stride + k]) * weights[j];
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < wide; j++) store(out + i * width + j * LANES, sum[i][j]);
}

/* out[r][...] = x[r][...] times the matrix, for `rows` rows, a multiple of ROWS. */
INLINE void product(const real *x, int64_t stride, int rows, const matrix *m, real *out, int64_t width) {
    for (int p = 0; p < m->strips; p++) {
        const real *w = m->numbers + m->at[p];
        real *to = out + m->first[p] * LANES;
        for (int r = 0; r < rows; r += ROWS)
            if (m->first[p + 1] - m->first[p] == 2)
                strip(x + r * stride, stride, w, m->from[p], m->to[p], to + r * width, width, 2);
            else
                strip(x + r * stride, stride, w, m->from[p], m->to[p], to + r * width, width, 1);
    }
}

INLINE int64_t sums_of(const copies *c) { return 2 * (int64_t)c->columns - c->doubles; }

/* One or two vectors of sums over slots from the projections of rows, for ROWS numbers of centres with so many
 * components: sums from `column` on of the projections there, and those `to_second` further of projections `second`
 * further. */
INLINE void copies_strip(const copies *c, const real *projections, const int32_t *table, int slots, int components,
                         int column, int wide, int second, int to_second, real *out, int64_t stride) {
    const int64_t n = c->columns, width = c->count * n;
    vec sum[ROWS][2] = {};
    for (int copy = 0; copy < c->count; copy++)
        for (int m = c->starts[copy]; m < c->starts[copy + 1]; m++) {
            const real *w = c->basis + m * sums_of(c) + column, *from = projections + copy * n + column;
            vec first = load(w), other = load(w + to_second);
            for (int i = 0; i < ROWS; i++) {
                const int64_t row = table[i / components * slots + c->members[m]];
                const real *x = from + (components * row + i % components) * width;
                sum[i][0] += first * load(x);
                if (wide == 2) sum[i][1] += other * load(x + second);
            }
        }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < wide; j++) store(out + i * stride + column + j * to_second, sum[i][j]);
}

INLINE void sums_by_copies(const copies *c, const real *projections, const int32_t *table, int slots, int components,
                           real *out, int64_t stride) {
    int k = 0;
    for (; k + 2 * LANES <= c->doubles; k += 2 * LANES)
        copies_strip(c, projections, table, slots, components, k, 2, LANES, LANES, out, stride);
    if (k < c->doubles) copies_strip(c, projections, table, slots, components, k, 1, 0, 0, out, stride);
    for (k = c->doubles; k < c->columns; k += LANES)
        copies_strip(c, projections, table, slots, components, k, 2, 0, c->columns - c->doubles, out, stride);
}

/* The transpose for one centre: sums (components, copies, columns) of the numbers of the centres in its slots. */
INLINE void spread_to_copies(const copies *c, const real *numbers, const int32_t *table, int components, real *out) {
    const int64_t n = c->columns, all_sums = sums_of(c);
    for (int copy = 0; copy < c->count; copy++)
        for (int64_t k = 0; k < n; k += LANES) {
            vec sum[3] = {};
            for (int m = c->starts[copy]; m < c->starts[copy + 1]; m++) {
                const real *x = numbers + components * all_sums * table[c->members[m]], *w = c->basis + m * all_sums;
                for (int64_t j = k; j < all_sums; j += j < c->doubles ? all_sums : n - c->doubles)
                    for (int i = 0; i < components; i++) sum[i] += load(w + j) * load(x + i * all_sums + j);
            }
            for (int i = 0; i < components; i++) store(out + (i * c->count + copy) * n + k, sum[i]);
        }
}

/* Projections (rows, count, columns) of rows first to last - 1 and up to BLOCK - 1 more of `length` numbers. */
void hpcspin_project(const copies *c, const real *x, int64_t length, int64_t first, int64_t last, real *out) {
    const int64_t width = c->weights.vectors * LANES;
    for (int64_t row = first; row < last; row += BLOCK)
        product(x + row * length, length, BLOCK, &c->weights, out + row * width, width);
}

/* `wide` vectors of densities of `rows` / 3 centres, three components each: weighted sums of the vectors in the slots. */
INLINE void dense(const layer *l, const real *vectors, const int32_t *table, const real *kernels, real *out, int rows,
                  int wide) {
    const int64_t width = l->vectors, n = l->densities;
    vec sum[ROWS][3] = {};
    for (int slot = 0; slot < l->slots; slot++) {
        const real *row[ROWS / 3], *w = kernels + slot * width * n;
        for (int c = 0; c < rows / 3; c++) row[c] = vectors + table[c * l->slots + slot] * 3 * width;
        for (int k = 0; k < width; k++, w += n) {
            vec weights[3];
            for (int j = 0; j < wide; j++) weights[j] = load(w + j * LANES);
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < wide; j++) sum[i][j] += all(row[i / 3][i % 3 * width + k]) * weights[j];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < wide; j++) store(out + i * n + j * LANES, sum[i][j]);
}

/* Densities of ROWS / 3 centres, two vectors of them at a time; the last three share the loads of half of the rows.
 * `vectors` are projections if there are copies, and so are `scalars` below. */
INLINE void densities(const layer *l, const real *vectors, const int32_t *table, real *out) {
    int p = 0, left = l->densities / LANES;
    if (l->vector_copies.count) {
        sums_by_copies(&l->vector_copies, vectors, table, l->slots, 3, out, l->densities);
        return;
    }
    for (; left > 3 || left == 2; p += 2 * LANES, left -= 2) dense(l, vectors, table, l->kernels + p, out + p, ROWS, 2);
    if (left == 1) dense(l, vectors, table, l->kernels + p, out + p, ROWS, 1);
    for (int i = 0; left == 3 && i < ROWS; i += ROWS / 2)
        dense(l, vectors, table + i / 3 * l->slots, l->kernels + p, out + p + i * (int64_t)l->densities, ROWS / 2, 3);
}

/* `wide` vectors of sums of scalars over the slots of BLOCK centres. */
INLINE void scalar_strip(const layer *l, const real *scalars, const int32_t *table, const real *kernels, real *out,
                         int64_t stride, int wide) {
    const int64_t n = l->scalar_sums;
    vec sum[BLOCK][2] = {};
    for (int slot = 0; slot < l->slots; slot++) {
        const real *row[BLOCK], *w = kernels + slot * l->scalars * n;
        for (int i = 0; i < BLOCK; i++) row[i] = scalars + table[i * l->slots + slot] * (int64_t)l->scalars;
        for (int k = 0; k < l->scalars; k++, w += n) {
            vec weights[2] = {load(w), load(w + (wide - 1) * LANES)};
            for (int i = 0; i < BLOCK; i++)
                for (int j = 0; j < wide; j++) sum[i][j] += all(row[i][k]) * weights[j];
        }
    }
    for (int i = 0; i < BLOCK; i++)
        for (int j = 0; j < wide; j++) store(out + i * stride + j * LANES, sum[i][j]);
}

/* Sums of scalars over the slots of BLOCK centres. */
INLINE void scalar_sums(const layer *l, const real *scalars, const int32_t *table, real *out, int64_t stride) {
    int p = 0;
    for (int i = 0; l->scalar_copies.count && i < BLOCK; i += ROWS)
        sums_by_copies(&l->scalar_copies, scalars, table + i * l->slots, l->slots, 1, out + i * stride, stride);
    if (l->scalar_copies.count) return;
    for (; ROWS == BLOCK && p + 2 * LANES <= l->scalar_sums; p += 2 * LANES)
        scalar_strip(l, scalars, table, l->scalar_kernels + p, out + p, stride, 2);
    for (; p < l->scalar_sums; p += LANES)
        scalar_strip(l, scalars, table, l->scalar_kernels + p, out + p, stride, 1);
}

/* x / (1 + exp(-x)), to 1e-17 where x < -40. */
INLINE void activate(real *x, const real *bias, int width) {
    for (int k = 0; k < width; k += LANES) {
        vec v = load(x + k) + load(bias + k);
        store(x + k, v * reciprocal(1.0f + exponential(-v)));
    }
}

/* S x v of one centre, for LANES vectors at a time, whose components are `apart` numbers from each other. */
INLINE void cross(const real *s, const real *v, int64_t apart, vec out[3]) {
    vec x = load(v), y = load(v + apart), z = load(v + 2 * apart);
    out[0] = s[1] * z - s[2] * y;
    out[1] = s[2] * x - s[0] * z;
    out[2] = s[0] * y - s[1] * x;
}

INLINE vec dot(const real *a, const real *b, int64_t apart) {
    return load(a) * load(b) + load(a + apart) * load(b + apart) + load(a + 2 * apart) * load(b + 2 * apart);
}

/* Invariants of one centre, from its densities (3, densities) and mixtures (3, columns). */
INLINE void invariants(const layer *l, const real *spin, const real *density, const real *mixed, int64_t columns,
                       real *out) {
    const int64_t n = l->densities;
    for (int k = 0; k < l->trivial; k += LANES) {
        const real *a = density + 1 + k;
        store(out + k, spin[0] * load(a) + spin[1] * load(a + n) + spin[2] * load(a + 2 * n));
    }
    real *to = out + l->trivial;
    for (int irrep = 0; irrep < l->irreps; irrep++) {
        const int64_t share = l->shares[irrep];
        for (int k = 0; k < share; k += LANES) {
            vec sum = {};
            for (int row = 0; row < l->dimensions[irrep]; row++) {
                const real *p = mixed + l->places[2 * irrep + row] + k;
                sum += dot(p, p + share, columns);
            }
            store(to + k, sum);
        }
        to += share;
    }
    for (int irrep = 0; l->triples && irrep < l->irreps; irrep++) {
        const int64_t share = l->shares[irrep];
        for (int k = 0; k < share; k += LANES) {
            vec sum = {};
            for (int row = 0; row < l->dimensions[irrep]; row++) {
                const real *u = mixed + l->places[2 * irrep + row] + 2 * share + k, *v = u + share;
                vec c[3];
                cross(spin, u, columns, c);
                sum += c[0] * load(v) + c[1] * load(v + columns) + c[2] * load(v + 2 * columns);
            }
            store(to + k, sum);
        }
        to += share;
    }
}

/* New vectors and scalars of one centre, added to the `old` ones if given; without scalars the sum of the vectors.
 * `row` has room for both and a vector of the processor. */
INLINE void finish(const layer *l, const real *spin, const real *sums, int64_t columns, const real *outputs,
                   const real *old, const real *old_scalars, real *row, real *vectors, real *scalars) {
    const int64_t n = l->out_vectors, m = l->out_scalars;
    const real present = spin[0] * spin[0] + spin[1] * spin[1] + spin[2] * spin[2] > 0.5f ? 1.0f : 0.0f;
    real *row_scalars = row + 3 * (1 + n);
    for (int i = 0; i < 3; i++) {
        const int next = (i + 1) % 3, last = (i + 2) % 3;
        real *out = row + i * (1 + n) + 1;
        for (int k = 0; k < n; k += LANES) {
            const real *across = sums + n + k;
            vec turned = spin[next] * load(across + last * columns) - spin[last] * load(across + next * columns);
            vec sum = load(outputs + k) * load(sums + i * columns + k) + load(outputs + n + k) * turned;
            store(out + k, present * sum + (old ? load(old + i * (1 + n) + 1 + k) : all(0.0f)));
        }
    }
    if (!m) {
        for (int i = 0; i < 3; i++) {
            vectors[i] = 0.0f;
            for (int k = 1; k <= n; k++) vectors[i] += row[i * (1 + n) + k];
        }
        return;
    }
    for (int k = 0; k < m; k += LANES)
        store(row_scalars + k,
              present * load(outputs + 2 * n + k) + (old_scalars ? load(old_scalars + k) : all(0.0f)));
    for (int i = 0; i < 3; i++) row[i * (1 + n)] = spin[i];
    memcpy(vectors, row, 3 * (1 + n) * sizeof(real));
    memcpy(scalars, row_scalars, m * sizeof(real));
}

/* Densities (BLOCK, 3, densities), mixtures (BLOCK, 3, columns) and features (BLOCK, features) of BLOCK centres, the
 * first `count` of which are used. */
INLINE void compute_features(const layer *l, const real *vectors, const real *scalars, const real *const projections[2],
                             const int32_t *mine, const real *inputs, int64_t count, real *density, real *mixed,
                             real *features) {
    const int64_t n = l->densities, columns = (int64_t)l->mixtures.vectors * LANES, row = 3 * (int64_t)l->vectors;
    const int64_t sums = l->trivial + l->products + l->triples, own = l->own_scalars ? l->scalars : 0;
    for (int i = 0; i < BLOCK; i += ROWS / 3)
        densities(l, projections[0], mine + i * l->slots, density + 3 * i * n);
    product(density, n, 3 * BLOCK, &l->mixtures, mixed, columns);
    for (int i = 0; i < BLOCK; i++) {
        const real *old = vectors + mine[i * l->slots] * row;
        real spin[3] = {old[0], old[l->vectors], old[2 * l->vectors]};
        invariants(l, spin, density + 3 * i * n, mixed + 3 * i * columns, columns, features + i * l->features);
    }
    scalar_sums(l, projections[1], mine, features + sums, l->features);
    for (int i = 0; i < count; i++) {
        real *rest = features + i * l->features + sums + l->scalar_features;
        memcpy(rest, scalars + mine[i * l->slots] * (int64_t)l->scalars, own * sizeof(real));
        memcpy(rest + own, inputs + i * l->inputs, l->inputs * sizeof(real));
    }
}

/* Intermediate results that the reverse sweep reads, of a centre and those after it: densities (3, densities), outputs
 * of the network (widest) and slopes of its hidden layers (widest), `apart` numbers from one layer to the next. */
typedef struct {
    real *density, *outputs, *slopes;
    int64_t apart;
} record;

/* The records from centre `from` on, in memory for `room` centres; without slopes if none are needed. */
INLINE record records(const layer *l, real *memory, int64_t room, int64_t from, int slopes) {
    const int64_t densities = 3 * (int64_t)l->densities, widest = l->widest;
    real *outputs = memory + room * densities, *slope = outputs + room * widest;
    return (record){memory + from * densities, outputs + from * widest, slopes ? slope + from * widest : 0,
                    room * widest};
}

int64_t hpcspin_record(const layer *l) { return 3 * (int64_t)l->densities + (1 + (int64_t)l->hidden_layers) * l->widest; }

/* `activate`, and its derivative. */
INLINE void activate_both(real *x, real *slope, const real *bias, int width) {
    for (int k = 0; k < width; k += LANES) {
        vec v = load(x + k) + load(bias + k), gate = reciprocal(1.0f + exponential(-v)), f = v * gate;
        store(x + k, f);
        store(slope + k, gate + f * (1.0f - gate));
    }
}

/* Fill the records of BLOCK centres and their mixtures; `x` has room for two of the network's widest layers. Not
 * inlined: two inlined copies might round differently. */
static __attribute__((noinline)) void run_network(const layer *l, const real *vectors, const real *scalars,
                                                  const real *const projections[2], const int32_t *mine,
                                                  const real *inputs, int64_t count, record r, real *mixed,
                                                  real *features, real *x) {
    const int64_t widest = l->widest;
    const real *from = features;
    int64_t width = l->features;
    compute_features(l, vectors, scalars, projections, mine, inputs, count, r.density, mixed, features);
    for (int number = 0; number <= l->hidden_layers; number++) {
        const matrix *m = &l->network[number];
        real *to = number == l->hidden_layers ? r.outputs : x + number % 2 * BLOCK * widest;
        product(from, width, BLOCK, m, to, widest);
        for (int i = 0; number < l->hidden_layers && i < BLOCK; i++)
            if (r.slopes)
                activate_both(to + i * widest, r.slopes + number * r.apart + i * widest, l->biases[number],
                              m->vectors * LANES);
            else
                activate(to + i * widest, l->biases[number], m->vectors * LANES);
        from = to;
        width = widest;
    }
}

/* Evaluate the layer for centres first to last - 1; `table` has BLOCK more of them after the last one.
 *
 * vectors (rows, 3, vectors), the spin first, and scalars (rows, scalars) are the input, with LANES more rows than the
 * table refers to; `projections` are those of `hpcspin_project` where a layer has copies, or else these vectors and
 * scalars themselves. New ones are written to the rows of the centres, table[...][0]: (rows, 3, 1 + new vectors), or,
 * without scalars, their sum, (rows, 3). `adds`: whether the input is added. `inputs` is (centres, inputs). `scratch`
 * has room for `hpcspin_layer_scratch` numbers. `kept` is null, or memory for the records of `room` centres; `first` is
 * then a multiple of BLOCK.
 */
void hpcspin_layer(const layer *l, const real *vectors, const real *scalars, const real *vector_projections,
                   const real *scalar_projections, const int32_t *table, const real *inputs, int64_t first,
                   int64_t last, int32_t adds, real *new_vectors, real *new_scalars, real *kept, int64_t room,
                   real *scratch) {
    const real *const projections[2] = {vector_projections, scalar_projections};
    const int64_t columns = (int64_t)l->mixtures.vectors * LANES, row = 3 * (int64_t)l->vectors;
    real *mixed = scratch, *features = mixed + 3 * BLOCK * columns, *x = features + BLOCK * l->features;
    real *new_row = x + 2 * BLOCK * l->widest, *own = new_row + 3 * (1 + l->out_vectors) + l->out_scalars + LANES;
    const int64_t apart = l->out_scalars ? 3 * (1 + l->out_vectors) : 3;
    memset(features, 0, BLOCK * l->features * sizeof(real));
    for (int64_t start = first; start < last; start += BLOCK) {
        const int32_t *mine = table + start * l->slots;
        const int64_t left = last - start, count = left < BLOCK ? left : BLOCK;
        const record r = kept ? records(l, kept, room, start, 1) : records(l, own, BLOCK, 0, 0);
        run_network(l, vectors, scalars, projections, mine, inputs + start * l->inputs, count, r, mixed, features, x);
        for (int i = 0; i < count; i++) {
            const int64_t at = mine[i * l->slots];
            const real *old = vectors + at * row;
            real spin[3] = {old[0], old[l->vectors], old[2 * l->vectors]};
            finish(l, spin, mixed + 3 * i * columns, columns, r.outputs + i * l->widest, adds ? old : 0,
                   adds ? scalars + at * l->scalars : 0, new_row, new_vectors + at * apart,
                   new_scalars + at * l->out_scalars);
        }
    }
}

/* The transposed matrices of a layer, for the reverse sweep: from mixtures to densities, the first `densities` of which
 * are returned, and those of the network from its outputs to the features, the last matrix first; `sums` numbers are
 * returned of the sums of scalars, with zeros at their end. */
typedef struct {
    matrix mixtures;
    const matrix *network;
    int32_t densities, sums;
} adjoint;

INLINE real total(vec v) {
    real sum = 0.0f;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

/* The first `count` numbers of a vector, and zeros after them. */
INLINE vec leading(vec v, int64_t count) {
    ivec lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return choose(lane < (int32_t)count, v, all(0.0f));
}

/* `count` numbers, at most a vector, from memory that ends at `end`, and zeros after them. */
INLINE vec partly(const real *p, int64_t count, const real *end) {
    real part[LANES] = {};
    if (count >= LANES) return load(p);
    if (end - p >= LANES) return leading(load(p), count);
    memcpy(part, p, count * sizeof(real));
    return load(part);
}

/* From derivatives with respect to new vectors (3, 1 + new vectors) and scalars of one centre to those with respect to
 * the outputs of the network and the sums of its vectors; adds the one with respect to its spin. */
INLINE void adjoint_of_finish(const layer *l, const real *spin, const real *sums, int64_t columns, const real *outputs,
                              const real *by_vectors, const real *end, const real *by_scalars, real *by_outputs,
                              real *by_sums, int64_t wide, real *by_spin) {
    const int64_t n = l->out_vectors, m = l->out_scalars;
    const real present = spin[0] * spin[0] + spin[1] * spin[1] + spin[2] * spin[2] > 0.5f ? 1.0f : 0.0f;
    vec g[3], by[3] = {};
    for (int64_t k = 0; k < n; k += LANES) {
        for (int i = 0; i < 3; i++) g[i] = present * partly(by_vectors + i * (1 + n) + 1 + k, n - k, end);
        const real *along = sums + k;
        store(by_outputs + k, g[0] * load(along) + g[1] * load(along + columns) + g[2] * load(along + 2 * columns));
        for (int i = 0; i < 3; i++) store(by_sums + i * wide + k, leading(load(outputs + k), n - k) * g[i]);
    }
    for (int64_t k = 0; k < n; k += LANES) {
        for (int i = 0; i < 3; i++) g[i] = present * partly(by_vectors + i * (1 + n) + 1 + k, n - k, end);
        vec turned = leading(load(outputs + n + k), n - k), product[3], sum = {};
        cross(spin, sums + n + k, columns, product);
        for (int i = 0; i < 3; i++) {
            const int next = (i + 1) % 3, last = (i + 2) % 3;
            const real *across = sums + n + k;
            sum += g[i] * product[i];
            store(by_sums + i * wide + n + k, turned * (g[next] * spin[last] - g[last] * spin[next]));
            by[i] += turned * (load(across + next * columns) * g[last] - load(across + last * columns) * g[next]);
        }
        store(by_outputs + n + k, sum);
    }
    for (int i = 0; i < 3; i++) by_spin[i] += total(by[i]);
    for (int64_t k = 0; k < m; k++) by_outputs[2 * n + k] = present * by_scalars[k];
}

/* From derivatives with respect to the scalar and triple products of one centre to those with respect to its mixtures;
 * adds the one with respect to its spin. */
INLINE void adjoint_of_products(const layer *l, const real *s, const real *mixed, int64_t columns, const real *by_products,
                                real *by_mixed, int64_t wide, real *by_spin) {
    vec sum[3] = {};
    for (int row = 0; row < 2; row++) {
        const real *by = by_products;
        for (int irrep = 0; irrep < l->irreps; by += l->shares[irrep++]) {
            if (row >= l->dimensions[irrep]) continue;
            const int64_t share = l->shares[irrep];
            const real *p = mixed + l->places[2 * irrep + row], *q = p + share, *u = q + share, *v = u + share;
            real *to = by_mixed + l->places[2 * irrep + row];
            for (int64_t k = 0; k < share; k += LANES)
                for (int i = 0; i < 3; i++) store(to + i * wide + k, load(by + k) * load(q + i * columns + k));
            to += share;
            for (int64_t k = 0; k < share; k += LANES)
                for (int i = 0; i < 3; i++) store(to + i * wide + k, load(by + k) * load(p + i * columns + k));
            if (!l->triples) continue;
            to += share;
            for (int64_t k = 0; k < share; k += LANES) {
                vec f = load(by + l->products + k), across[3], product;
                cross(s, v + k, columns, across);
                for (int i = 0; i < 3; i++) {
                    const int64_t next = (i + 1) % 3 * columns + k, last = (i + 2) % 3 * columns + k;
                    store(to + i * wide + k, -f * across[i]);
                    product = load(u + next) * load(v + last) - load(u + last) * load(v + next);
                    sum[i] += leading(f * product, share - k);
                }
            }
            to += share;
            for (int64_t k = 0; k < share; k += LANES) {
                vec f = load(by + l->products + k), across[3];
                cross(s, u + k, columns, across);
                for (int i = 0; i < 3; i++) store(to + i * wide + k, f * across[i]);
            }
        }
    }
    for (int i = 0; i < 3; i++) by_spin[i] += total(sum[i]);
}

/* Reverse sweep through a layer for its centres first to last - 1, for `potentials` derivatives at once: from those
 * with respect to its output, by_vectors (potentials, rows, 3, 1 + new vectors) and by_scalars (potentials, rows, new
 * scalars), to those with respect to its sums over slots, by_densities (potentials, room, 3, densities of `back`), and,
 * if there are scalars, by_sums (potentials, room, sums of `back`) and by_own (potentials, rows, scalars). `kept` are
 * the records of `hpcspin_layer`, or null: they are then recomputed, and the scalars of the layer are written to
 * new_scalars (rows, new scalars) unless that is null. Other arguments are those of `hpcspin_layer`.
 */
void hpcspin_layer_adjoint(const layer *l, const adjoint *back, const real *vectors, const real *scalars,
                           const real *vector_projections, const real *scalar_projections, const int32_t *table,
                           const real *inputs, int64_t first, int64_t last, int64_t potentials, int64_t rows,
                           int64_t room, const real *by_vectors, const real *by_scalars, real *by_densities,
                           real *by_sums, real *by_own, real *new_scalars, real *kept, real *scratch) {
    const real *const projections[2] = {vector_projections, scalar_projections};
    const int64_t n = l->densities, columns = (int64_t)l->mixtures.vectors * LANES, row = 3 * (int64_t)l->vectors;
    const int64_t wide = columns + LANES, out_row = 3 * (1 + (int64_t)l->out_vectors), m = l->out_scalars;
    const int64_t products = l->trivial, sums = l->trivial + l->products + l->triples, widest = l->widest;
    const int64_t span = 2 * (int64_t)l->out_vectors + LANES;
    const int hidden = l->hidden_layers;
    real *mixed = scratch, *features = mixed + 3 * BLOCK * columns, *by_mixed = features + BLOCK * l->features;
    real *by_density = by_mixed + 3 * BLOCK * wide, *x = by_density + 3 * BLOCK * n, *y = x + BLOCK * widest;
    real *by_vector_sums = y + BLOCK * widest, *own = by_vector_sums + 3 * BLOCK * span, by_spin[BLOCK][3];
    memset(features, 0, BLOCK * l->features * sizeof(real));
    memset(by_mixed, 0, 3 * BLOCK * wide * sizeof(real));
    for (int64_t start = first; start < last; start += BLOCK) {
        const int32_t *mine = table + start * l->slots;
        const int64_t left = last - start, count = left < BLOCK ? left : BLOCK;
        const record r = kept ? records(l, kept, room, start, 1) : records(l, own, BLOCK, 0, 1);
        const real *density = r.density, *outputs = r.outputs;
        if (kept)
            product(density, n, 3 * BLOCK, &l->mixtures, mixed, columns);
        else
            run_network(l, vectors, scalars, projections, mine, inputs + start * l->inputs, count, r, mixed, features, x);
        for (int64_t p = 0; p < potentials; p++) {
            memset(x, 0, BLOCK * widest * sizeof(real));
            memset(by_spin, 0, sizeof by_spin);
            for (int i = 0; i < count; i++) {
                const int64_t at = mine[i * l->slots], place = p * rows + at;
                const real *old = vectors + at * row;
                const real spin[3] = {old[0], old[l->vectors], old[2 * l->vectors]};
                adjoint_of_finish(l, spin, mixed + 3 * i * columns, columns, outputs + i * widest,
                                  by_vectors + place * out_row, by_vectors + potentials * rows * out_row,
                                  by_scalars + place * m, x + i * widest,
                                  by_vector_sums + 3 * i * span, span, by_spin[i]);
                if (new_scalars && !p)
                    for (int64_t k = 0; k < m; k++)
                        new_scalars[at * m + k] = spin[0] * spin[0] + spin[1] * spin[1] + spin[2] * spin[2] > 0.5f
                                                      ? outputs[i * widest + 2 * l->out_vectors + k]
                                                      : 0.0f;
            }
            real *by = x;
            for (int number = hidden; number >= 0; number--) {
                real *to = by == x ? y : x;
                product(by, widest, BLOCK, &back->network[hidden - number], to, widest);
                if (number)
                    for (int i = 0; i < BLOCK; i++)
                        for (int k = 0; k < l->network[number - 1].vectors * LANES; k += LANES)
                            store(to + i * widest + k, load(to + i * widest + k) *
                                                           load(r.slopes + (number - 1) * r.apart + i * widest + k));
                by = to;
            }
            for (int i = 0; i < count; i++) {
                const real *old = vectors + mine[i * l->slots] * row;
                const real spin[3] = {old[0], old[l->vectors], old[2 * l->vectors]};
                adjoint_of_products(l, spin, mixed + 3 * i * columns, columns, by + i * widest + products,
                                    by_mixed + 3 * i * wide, wide, by_spin[i]);
                for (int c = 0; c < 3; c++)
                    memcpy(by_mixed + (3 * i + c) * wide, by_vector_sums + (3 * i + c) * span,
                           2 * l->out_vectors * sizeof(real));
            }
            product(by_mixed, wide, 3 * BLOCK, &back->mixtures, by_density, n);
            for (int i = 0; i < count; i++) {
                const int64_t place = p * room + start + i;
                const real *old = vectors + mine[i * l->slots] * row, *by_features = by + i * widest;
                const int64_t kept = back->densities;
                real *to = by_densities + 3 * place * kept;
                for (int c = 0; c < 3; c++) {
                    memcpy(to + c * kept, by_density + (3 * i + c) * n, kept * sizeof(real));
                    const real *a = density + (3 * i + c) * n + 1;
                    real own = by_spin[i][c];
                    for (int64_t k = 0; k < l->trivial; k++) {
                        to[c * kept + 1 + k] += by_features[k] * old[c * l->vectors];
                        own += by_features[k] * a[k];
                    }
                    to[c * kept] += own; /* The first density is the spin. */
                }
                if (l->own_scalars) {
                    memcpy(by_sums + place * back->sums, by_features + sums, l->scalar_features * sizeof(real));
                    memcpy(by_own + (p * rows + mine[i * l->slots]) * l->scalars,
                           by_features + sums + l->scalar_features, l->scalars * sizeof(real));
                }
            }
        }
    }
}

int64_t hpcspin_adjoint_scratch(const layer *l) {
    const int64_t columns = (int64_t)l->mixtures.vectors * LANES;
    return BLOCK * (3 * (l->densities + 2 * columns + 2 * (int64_t)l->out_vectors + 2 * LANES) + l->features +
                    2 * (int64_t)l->widest + hpcspin_record(l));
}

/* Sums over the slots of one centre of the scalar products of densities (rows, 3, vectors), in whole vectors, with one
 * row of kernels per slot. */
INLINE void dots(const layer *l, const real *vectors, const int32_t *table, real *out) {
    const int64_t n = l->vectors;
    vec sum[3] = {};
    for (int slot = 0; slot < l->slots; slot++)
        for (int64_t k = 0; k < n; k += LANES) {
            const real *row = vectors + table[slot] * 3 * n + k;
            for (int i = 0; i < 3; i++) sum[i] += load(row + i * n) * load(l->kernels + slot * n + k);
        }
    for (int i = 0; i < 3; i++) out[i] = total(sum[i]);
}

/* Transposed sums over the slots of BLOCK centres by copies: numbers (BLOCK * components, columns of `weights`). */
INLINE void transposed(const copies *c, const real *numbers, const int32_t *table, int slots, int components, real *out,
                       real *scratch) {
    const int64_t width = c->count * (int64_t)c->columns;
    for (int i = 0; i < BLOCK; i++)
        spread_to_copies(c, numbers, table + i * slots, components, scratch + components * i * width);
    product(scratch, width, components * BLOCK, &c->weights, out, c->weights.vectors * LANES);
}

/* Sums over the slots of rows first to last - 1: densities (rows, 3, densities), without padding if there is only one,
 * and sums of scalars (rows, scalar_sums), if there are any. With copies these are the transposed sums. `table` as for
 * `hpcspin_layer`; `scratch` has room for BLOCK times the numbers of a row that are written, and 3 * BLOCK times those of
 * the copies. */
void hpcspin_sums(const layer *l, const real *vectors, const real *scalars, const int32_t *table, int64_t first,
                  int64_t last, real *out, real *out_scalars, real *scratch) {
    const copies *by_vector = &l->vector_copies, *by_scalar = &l->scalar_copies;
    const int64_t n = 3 * (int64_t)l->densities, m = l->scalar_sums;
    real *sums = scratch + BLOCK * n, *rest = sums + BLOCK * m;
    if (l->densities == 1) {
        for (int64_t at = first; at < last; at++) dots(l, vectors, table + at * l->slots, out + 3 * at);
        return;
    }
    for (int64_t start = first; start < last; start += BLOCK) {
        const int32_t *mine = table + start * l->slots;
        const int64_t left = last - start, count = left < BLOCK ? left : BLOCK;
        if (by_vector->count)
            transposed(by_vector, vectors, mine, l->slots, 3, scratch, rest);
        else
            for (int i = 0; i < BLOCK; i += ROWS / 3) densities(l, vectors, mine + i * l->slots, scratch + i * n);
        memcpy(out + start * n, scratch, count * n * sizeof(real));
        if (!m) continue;
        if (by_scalar->count)
            transposed(by_scalar, scalars, mine, l->slots, 1, sums, rest);
        else
            scalar_sums(l, scalars, mine, sums, m);
        memcpy(out_scalars + start * m, sums, count * m * sizeof(real));
    }
}

int64_t hpcspin_layer_scratch(const layer *l) {
    return BLOCK * (3 * (int64_t)l->mixtures.vectors * LANES + l->features + 2 * (int64_t)l->widest + hpcspin_record(l)) +
           3 * (1 + l->out_vectors) + l->out_scalars + LANES;
}

int64_t hpcspin_lanes(void) { return LANES; }

/* Whether n arrays of so many bytes have the same content as their copies. */
int64_t hpcspin_same(const void *const *arrays, const void *const *copies, const int64_t *bytes, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (memcmp(arrays[i], copies[i], bytes[i])) return 0;
    return 1;
}
