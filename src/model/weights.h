/* Constants of the networks: recipes over the tensors of a store, evaluated when a backend loads them. Algebra that saves
 * work in every step is done here, once (svd-spec.md 7.11; performance.md A7). */
#ifndef VD_MODEL_WEIGHTS_H
#define VD_MODEL_WEIGHTS_H

#include "device/ops.h"
#include "model/store.h"

/* Owns every constant of an open model; equal requests return the same address, so that programs of different shapes
 * share one packed copy. Building is single-threaded; filling is not. */
typedef struct vd_weights vd_weights;

vd_weights *vd_weights_new(vd_store *store); /* NULL: out of memory. The store must outlive it. */
void vd_weights_free(vd_weights *w);

/* One tensor, or rows/columns of it: `name` with exact dims [out, in, kh, kw] (rank from the count of dims given; a
 * temporal kernel [out, in, kt, 1, 1] reads as [out, in, kt, 1]). The first failure is kept for vd_weights_error and
 * NULL is returned; builders go on and the program's finish is not reached. */
typedef struct vd_part {
    const char *name;        /* tensor in the store; NULL ends a list */
    int64_t in_first, in_count; /* columns (input channels) taken; in_count 0: all */
    int64_t out_count;       /* rows taken from the first; 0: all */
    float scale;             /* 0 stands for 1 */
} vd_part;

const vd_constant *vd_weights_vector(vd_weights *w, const char *name, int64_t count);
const vd_constant *vd_weights_matrix(vd_weights *w, const char *name, int64_t out, int64_t in);
const vd_constant *vd_weights_conv(vd_weights *w, const char *name, int64_t out, int64_t in, int64_t kh, int64_t kw);
/* Parts stacked along the outputs, each [outs[i], in, ...]: packed q, k, v; all time projections of a network. */
const vd_constant *vd_weights_stack(vd_weights *w, const vd_part *parts, const int64_t *outs, int count, int64_t in);
/* Element-wise sum of vectors or equal shapes, each with its scale. */
const vd_constant *vd_weights_sum(vd_weights *w, const vd_part *parts, int count, const int64_t dims[4]);
/* sigmoid(mix_factor), read at once (7.8). */
float vd_weights_mix(vd_weights *w, const char *name);

vd_code vd_weights_error(const vd_weights *w, vd_error *err); /* VD_OK or the first failure */

#endif
