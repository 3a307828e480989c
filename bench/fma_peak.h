/* The machine's limit for fp32: fused multiply-adds on twelve independent registers of the widest kind,
 * one thread. */
#ifndef VD_BENCH_FMA_PEAK_H
#define VD_BENCH_FMA_PEAK_H

#include "base/thread.h"

#include <stdbool.h>

#define VD_FMA_LOOP(name, isa, width)                                                                        \
    __attribute__((noipa, target(isa), optimize("O3", "fp-contract=fast"))) static float name(int rounds) {  \
        typedef float lanes __attribute__((vector_size(width)));                                             \
        lanes sum[12], a = {0}, b = {0};                                                                     \
        a += 0.999f;                                                                                         \
        b += 0.001f;                                                                                         \
        for (int i = 0; i < 12; i++)                                                                         \
            sum[i] = b * (float)i;                                                                           \
        for (int r = 0; r < rounds; r++)                                                                     \
            for (int i = 0; i < 12; i++)                                                                     \
                sum[i] = sum[i] * a + b;                                                                     \
        for (int i = 1; i < 12; i++)                                                                         \
            sum[0] += sum[i];                                                                                \
        return sum[0][0];                                                                                    \
    }
VD_FMA_LOOP(vd_fma_avx512, "avx512f", 64)
VD_FMA_LOOP(vd_fma_avx2, "avx2,fma", 32)
VD_FMA_LOOP(vd_fma_sse2, "sse2", 16)

typedef struct vd_fma_peak {
    double best; /* of all windows so far; multiply-adds times two per second */
    float sink;  /* print it, or the compiler may drop the work */
} vd_fma_peak;

/* Five windows of about 2 ms. */
static void vd_fma_peak_measure(vd_fma_peak *p) {
    bool wide = __builtin_cpu_supports("avx512f"), middle = __builtin_cpu_supports("fma");
    int lanes = wide ? 16 : middle ? 8 : 4, rounds = 20000;
    for (int window = 0; window < 5; window++) {
        double begin = vd_now();
        for (int i = 0; i < 5; i++)
            p->sink += wide ? vd_fma_avx512(rounds) : middle ? vd_fma_avx2(rounds) : vd_fma_sse2(rounds);
        double rate = 2.0 * 12 * lanes * rounds * 5 / (vd_now() - begin);
        if (rate > p->best)
            p->best = rate;
    }
}

#endif
