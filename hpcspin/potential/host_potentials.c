/* Potentials of `PotentialField` on a CPU, and their derivatives with respect to the spins around a centre: a network
 * whose features are sums of products of these spins. In single precision, or in double if DOUBLE is defined.
 *
 * Each lane of two vectors is a centre, and lanes do not mix: the operations on a centre and their order do not depend
 * on its place or on the thread. A row holds one number of each of WIDE centres, and a weight is broadcast to all of
 * them.
 */
#include "host_vectors.h"

#include <string.h>

#define WIDE (2 * LANES) /* Centres of a block. */

/* A matrix in panels of ROWS rows, with zeros after the last one: (panels, columns, ROWS). */
typedef struct {
    const real *numbers;
    int32_t rows, columns;
} matrix;

/* The rows of a centre are: 1; the spins in its slots (slots, 3); whether each slot holds a spin (slots); and sums of
 * products of two earlier rows, the last of which are the features. The other inputs of the network follow. The terms
 * of sum s are those from `ends[s - 1]` to `ends[s] - 1`: a factor and two rows; a term with one row has row 0, the 1,
 * on the right. */
typedef struct {
    int32_t slots, sums, features, inputs;
    const int32_t *ends, *left, *right;
    const real *factors;
    int32_t potentials, hidden_layers, widest; /* widest: rows of the network's widest layer, up to whole panels */
    const matrix *there, *back;                /* of the network's layers; back[0] leads to the features alone */
    const real *const *biases;                 /* of the hidden layers, up to whole panels */
} potential;

/* out (rows up to whole panels, WIDE) = the matrix times x (columns, WIDE). */
static void product(const matrix *m, const real *x, real *out) {
    const real *w = m->numbers;
    for (int row = 0; row < m->rows; row += ROWS, out += ROWS * WIDE) {
        vec sum[ROWS][2] = {};
        for (int k = 0; k < m->columns; k++, w += ROWS) {
            const vec numbers[2] = {load(x + k * WIDE), load(x + k * WIDE + LANES)};
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < 2; j++) sum[i][j] += all(w[i]) * numbers[j];
        }
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < 2; j++) store(out + i * WIDE + j * LANES, sum[i][j]);
    }
}

/* x / (1 + exp(-x)) and its derivative. */
static void activate(real *x, real *slope, const real *bias, int rows) {
    for (int k = 0; k < rows * WIDE; k += LANES) {
        vec v = load(x + k) + bias[k / WIDE], gate = reciprocal(1.0f + exponential(-v)), f = v * gate;
        store(x + k, f);
        store(slope + k, gate + f * (1.0f - gate));
    }
}

/* Fill the first rows of WIDE centres from the spins (rows, 3) and the table of their slots, (slots, stride). */
static void gather(const potential *p, const real *spins, const int32_t *table, int64_t stride, real *x) {
    real *present = x + (1 + 3 * (int64_t)p->slots) * WIDE;
    for (int i = 0; i < WIDE; i++) x[i] = 1.0f;
    for (int slot = 0; slot < p->slots; slot++)
        for (int i = 0; i < WIDE; i++) {
            const real *s = spins + 3 * (int64_t)table[slot * stride + i];
            for (int c = 0; c < 3; c++) x[(1 + 3 * slot + c) * WIDE + i] = s[c];
            present[slot * WIDE + i] = s[0] * s[0] + s[1] * s[1] + s[2] * s[2] > 0.5f ? 1.0f : 0.0f;
        }
}

static void sums_of_products(const potential *p, real *x) {
    real *out = x + (1 + 4 * (int64_t)p->slots) * WIDE;
    for (int s = 0, t = 0; s < p->sums; s++, out += WIDE) {
        vec sum[2] = {};
        for (; t < p->ends[s]; t++) {
            const real *left = x + p->left[t] * WIDE, *right = x + p->right[t] * WIDE;
            for (int j = 0; j < 2; j++) sum[j] += p->factors[t] * load(left + j * LANES) * load(right + j * LANES);
        }
        for (int j = 0; j < 2; j++) store(out + j * LANES, sum[j]);
    }
}

/* Reverse sweep: from the derivatives by the features, in the last rows of `by`, to those by all rows but the first. */
static void adjoint_of_sums(const potential *p, const real *x, real *by) {
    for (int s = p->sums - 1; s >= 0; s--) {
        const real *from = by + (1 + 4 * (int64_t)p->slots + s) * WIDE;
        const vec given[2] = {load(from), load(from + LANES)};
        for (int t = s ? p->ends[s - 1] : 0; t < p->ends[s]; t++) {
            const int64_t left = p->left[t] * WIDE, right = p->right[t] * WIDE;
            for (int64_t j = 0; j < WIDE; j += LANES) {
                const vec g = p->factors[t] * given[j / LANES];
                store(by + left + j, load(by + left + j) + g * load(x + right + j));
                if (right) store(by + right + j, load(by + right + j) + g * load(x + left + j));
            }
        }
    }
}

/* Evaluate centres first to last - 1, WIDE at a time; all arrays have room for whole blocks of WIDE centres.
 *
 * `spins` (rows, 3) and `table` (slots, stride) are as in `gather`. `weights` (potentials, centres) multiply the
 * outputs of the network, and `inputs` is (inputs, centres). Results are the potentials `local`, (potentials, centres),
 * and their derivatives with respect to the spins in the first `wanted` slots, (wanted, potentials, 3, centres); both
 * are zero where a centre is missing. `scratch` has room for `hpcspin_potentials_scratch` numbers.
 */
void hpcspin_potentials(const potential *p, const real *spins, const int32_t *table, int64_t stride,
                        const real *weights, const real *inputs, int64_t first, int64_t last, int64_t centres,
                        int64_t wanted, real *local, real *by_spin, real *scratch) {
    const int64_t start = 1 + 4 * (int64_t)p->slots, rows = start + p->sums, layer = p->widest * WIDE;
    const int64_t features = (rows - p->features) * WIDE;
    const int hidden = p->hidden_layers;
    real *x = scratch, *by = x + (rows + p->inputs) * WIDE, *made[2] = {by + (rows + ROWS) * WIDE};
    made[1] = made[0] + layer;
    real *slopes = made[1] + layer, *factors = slopes + hidden * layer, *seeds = factors + p->potentials * WIDE;
    for (int64_t at = first; at < last; at += WIDE) {
        gather(p, spins, table + at, stride, x);
        sums_of_products(p, x);
        for (int n = 0; n < p->inputs; n++)
            memcpy(x + (rows + n) * WIDE, inputs + n * centres + at, WIDE * sizeof(real));
        const real *from = x + features;
        for (int n = 0; n <= hidden; n++) {
            product(&p->there[n], from, made[n % 2]);
            if (n < hidden) activate(made[n % 2], slopes + n * layer, p->biases[n], p->there[n].rows);
            from = made[n % 2];
        }
        for (int64_t k = 0; k < p->potentials * WIDE; k++) {
            const int64_t place = k / WIDE * centres + at + k % WIDE;
            factors[k] = weights[place] * x[(1 + 3 * p->slots) * WIDE + k % WIDE];
            local[place] = from[k] * factors[k];
        }
        for (int64_t q = 0; q < p->potentials; q++) {
            memset(seeds, 0, p->potentials * WIDE * sizeof(real));
            memcpy(seeds + q * WIDE, factors + q * WIDE, WIDE * sizeof(real));
            from = seeds;
            for (int n = hidden; n > 0; n--) {
                real *to = made[n % 2];
                product(&p->back[n], from, to);
                for (int64_t k = 0; k < p->back[n].rows * WIDE; k += LANES)
                    store(to + k, load(to + k) * load(slopes + (n - 1) * layer + k));
                from = to;
            }
            memset(by, 0, features * sizeof(real));
            product(&p->back[0], from, by + features);
            adjoint_of_sums(p, x, by);
            for (int64_t slot = 0; slot < wanted; slot++)
                for (int c = 0; c < 3; c++)
                    memcpy(by_spin + ((slot * p->potentials + q) * 3 + c) * centres + at,
                           by + (1 + 3 * slot + c) * WIDE, WIDE * sizeof(real));
        }
    }
}

int64_t hpcspin_potentials_scratch(const potential *p) {
    const int64_t rows = 1 + 4 * (int64_t)p->slots + p->sums;
    return WIDE * (2 * rows + p->inputs + ROWS + (2 + p->hidden_layers) * (int64_t)p->widest + 2 * p->potentials);
}

int64_t hpcspin_rows(void) { return ROWS; }

int64_t hpcspin_wide(void) { return WIDE; }
