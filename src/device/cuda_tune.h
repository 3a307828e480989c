/* Choosing plans by trying them. Every plan that the libraries have for a problem runs on random numbers;
 * what it gives is compared with sums in fp64 at places spread over the result; the fastest of the right
 * ones is kept on disk, where whoever opens the problem next finds it. */
#ifndef VD_DEVICE_CUDA_TUNE_H
#define VD_DEVICE_CUDA_TUNE_H

#include "device/cuda_math.h"

/* Runs these plans of a problem; `best` is the fastest right one, NULL and a warning when there is none. The
 * device is current and nothing else runs on it; it has memory for the problem's operands and the workspace
 * cap. */
vd_code vd_cuda_try(vd_cuda_math *m, const vd_cuda_problem *problem, const vd_cuda_plans *plans,
                    const vd_cuda_tuner *tuner, const vd_cuda_plan **best, vd_error *err);

/* Tries all plans that the libraries have and keeps the best. */
vd_code vd_cuda_tune(vd_cuda_math *m, const vd_cuda_problem *problem, const vd_cuda_tuner *tuner,
                     vd_error *err);

/* ---- cuda_tune_check.c: operands on the host, and what is right for them ---- */

enum { VD_CUDA_X, VD_CUDA_WEIGHTS, VD_CUDA_BIAS, VD_CUDA_Z, VD_CUDA_OPERANDS };
enum { VD_CUDA_SAMPLES = 512 };

typedef struct vd_cuda_trial_data {
    const vd_cuda_problem *problem;
    void *operands[VD_CUDA_OPERANDS]; /* NULL: the problem has none */
    size_t bytes[VD_CUDA_OPERANDS], y_bytes;
    int64_t places[VD_CUDA_SAMPLES]; /* in y */
    double values[VD_CUDA_SAMPLES];  /* there */
    int samples;
} vd_cuda_trial_data;

/* Draws operands and works out the samples. `out` is to be closed also after an error. */
vd_code vd_cuda_trial_data_open(const vd_cuda_problem *problem, vd_cuda_trial_data *out, vd_error *err);
void vd_cuda_trial_data_close(vd_cuda_trial_data *d);

/* Of `y`, on the host: infinite where there is a NaN. */
double vd_cuda_trial_error(const vd_cuda_trial_data *d, const void *y);
double vd_cuda_trial_tolerance(const vd_cuda_problem *problem, bool tf32);

#endif
