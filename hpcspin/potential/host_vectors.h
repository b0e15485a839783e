/* Vectors of the processor and operations on them for the kernels of learned fields, in single precision, or in double
 * if DOUBLE is defined.
 */
#pragma once
#include <stdint.h>

#ifdef DOUBLE
typedef double real;
typedef int64_t integer;
#else
typedef float real;
typedef int32_t integer;
#endif

/* Bytes of a vector, and number of rows that share a load of weights: two vectors of each row stay in registers. */
#if defined(__AVX512F__)
#define BYTES 64
#define ROWS 12
#elif defined(__AVX__)
#define BYTES 32
#define ROWS 6
#elif defined(__aarch64__)
#define BYTES 16
#define ROWS 12
#else
#define BYTES 16
#define ROWS 6
#endif
#define LANES (BYTES / (int)sizeof(real)) /* Numbers in a vector. */
#define INLINE static inline __attribute__((always_inline))

typedef real vec __attribute__((vector_size(BYTES), aligned(sizeof(real))));
typedef integer ivec __attribute__((vector_size(BYTES), aligned(sizeof(real))));

INLINE vec load(const real *p) { return *(const vec *)p; }
INLINE void store(real *p, vec v) { *(vec *)p = v; }
INLINE vec all(real x) { return x - (vec){}; }
INLINE vec choose(ivec which, vec yes, vec no) { return (vec)((which & (ivec)yes) | (~which & (ivec)no)); }

/* exp by 2^n times a polynomial, between -40 and 40: relative error 1e-7, in double precision 4e-16. */
INLINE vec exponential(vec x) {
    x = choose(x > 40.0f, all(40.0f), x);
    x = choose(x < -40.0f, all(-40.0f), x);
#ifdef DOUBLE
    const vec rounding = all(0x1.8p52); /* as below */
    vec shifted = x * 1.4426950408889634 + rounding, n = shifted - rounding;
    vec r = x - n * 6.93147180369123816490e-1 - n * 1.90821492927058770002e-10;
    vec p = all(1.0 / 6227020800.0); /* 1 / 13!, and so on */
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    ivec bits = (((ivec)shifted - 0x4338000000000000) + 1023) << 52;
#else
    const vec rounding = all(0x1.8p23f); /* 1.5 * 2^23: adding it leaves the nearest integer in the last bits */
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
#endif
    return p * (vec)bits;
}

/* 1 / x for positive x: a start from the negated exponent, an eighth off, and Newton steps, each of which squares the
 * error. Dividing a vector of 16 numbers takes as long as 30 products. */
INLINE vec reciprocal(vec x) {
#ifdef DOUBLE
    const integer exponent = 0x7FDE623822FC16E6;
    const int steps = 5;
#else
    const integer exponent = 0x7EF311C7;
    const int steps = 3;
#endif
    vec y = (vec)(exponent - (ivec)x);
    for (int i = 0; i < steps; i++) y = y * (2.0f - x * y);
    return y;
}
