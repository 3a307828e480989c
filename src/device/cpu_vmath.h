/* Functions of vd_vec. The coefficients are our own minimax fits (Lawson's iteration in double). */
#ifndef VD_DEVICE_CPU_VMATH_H
#define VD_DEVICE_CPU_VMATH_H

#include "device/cpu_simd.h"

/* Nearest integer, |x| < 2^22: in [2^23, 2^24) the spacing of floats is 1. */
VD_INLINE vd_vec vd_nearest(vd_vec x) {
    return (x + 12582912.0f) - 12582912.0f;
}

/* e^x to 1 ulp, gradual underflow, infinity above 88.72; NaN stays NaN. */
VD_INLINE vd_vec vd_exp(vd_vec x) {
    x = vd_at_least(vd_at_most(x, vd_all(89.0f)), vd_all(-105.0f));
    vd_vec n = vd_nearest(x * 1.44269504f);
    /* ln(2) in two parts, the first with so few bits that its product with n is exact */
    vd_vec r = vd_fma(n, vd_all(-0.693359375f), x);
    r = vd_fma(n, vd_all(2.12194440e-4f), r);
    vd_vec p = vd_all(0.001381459879f);
    p = vd_fma(p, r, vd_all(0.008368717507f));
    p = vd_fma(p, r, vd_all(0.04166838899f));
    p = vd_fma(p, r, vd_all(0.1666652113f));
    p = vd_fma(p, r, vd_all(0.4999999404f));
    return vd_scale2(vd_fma(p * r, r, r) + 1.0f, n);
}

/* 2^x for x <= 0, to 1.3 ulp; 2^0 is 1. */
VD_INLINE vd_vec vd_exp2_negative(vd_vec x) {
#if defined(__AVX512DQ__)
    vd_vec n = x, f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF); /* scaling rounds n down itself */
#else
    x = vd_at_least(x, vd_all(-152.0f));
    vd_vec n = vd_nearest(x - 0.5f), f = x - n;
#endif
    vd_vec p = vd_all(1.86713005e-3f);
    p = vd_fma(p, f, vd_all(9.017030708e-3f));
    p = vd_fma(p, f, vd_all(5.579991266e-2f));
    p = vd_fma(p, f, vd_all(0.2401644439f));
    p = vd_fma(p, f, vd_all(0.6931512952f));
    p = vd_fma(p, f, vd_all(1.0f));
    return vd_scale2(p, n);
}

/* x * sigmoid(k * x) */
VD_INLINE vd_vec vd_swish(vd_vec x, float k) {
    return x / (vd_exp(x * -k) + 1.0f);
}

/* x * Phi(x), Phi the normal distribution: 1/2 + x * P(x^2) / Q(x^2) within 5.4 deviations, where Phi leaves
 * 3e-8. */
VD_INLINE vd_vec vd_gelu(vd_vec x) {
    vd_vec t = vd_at_least(vd_at_most(x, vd_all(5.4f)), vd_all(-5.4f)), u = t * t;
    vd_vec p = vd_all(2.338672946e-8f), q = vd_all(1.216586591e-6f);
    p = vd_fma(p, u, vd_all(6.359962229e-6f));
    q = vd_fma(q, u, vd_all(7.239896156e-5f));
    p = vd_fma(p, u, vd_all(1.643184522e-4f));
    q = vd_fma(q, u, vd_all(1.858963208e-3f));
    p = vd_fma(p, u, vd_all(4.65083084e-3f));
    q = vd_fma(q, u, vd_all(2.837851925e-2f));
    p = vd_fma(p, u, vd_all(3.337194912e-2f));
    q = vd_fma(q, u, vd_all(0.2503171605f));
    p = vd_fma(p, u, vd_all(0.3989422454f));
    q = vd_fma(q, u, vd_all(1.0f));
    return x * vd_fma(t, p / q, vd_all(0.5f));
}

#endif
