/* Constants of the networks: recipes over the tensors of a store, evaluated when a backend loads them.
 * Algebra that saves work in every step is done here, once (svd-spec.md 7.11; performance.md A7). */
#ifndef VD_MODEL_WEIGHTS_H
#define VD_MODEL_WEIGHTS_H

#include "device/ops.h"
#include "model/store.h"

/* Owns every constant of a component; equal requests return the same address, so that programs of different
 * shapes share one packed copy. Building is single-threaded; filling is not. */
typedef struct vd_weights vd_weights;

vd_weights *vd_weights_new(vd_store *store); /* NULL: out of memory. The store must outlive it. */
void vd_weights_free(vd_weights *w);

/* The name of a tensor, or the beginning of one ("down_blocks.0.resnets.1."). Passed around by value. */
typedef struct vd_name {
    char text[120];
} vd_name;

vd_name vd_name_in(vd_name outer, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum { VD_PART_RANK = 5 };

/* A tensor, or its first rows, or some of its columns, and where that goes in a constant. Rows are outputs,
 * columns are input channels. */
typedef struct vd_part {
    vd_name name;
    int64_t dims[VD_PART_RANK]; /* of the whole tensor, exactly; zeros after the last */
    int64_t rows;               /* taken from the first on; 0: all */
    int64_t column, columns;    /* columns [column, column + columns); columns 0: all */
    int64_t at;                 /* row of the constant that the first row goes to */
    float scale;
} vd_part;

#define VD_PART(...) ((vd_part){.scale = 1, __VA_ARGS__})

/* The constant [out, in, kh, kw] that the parts make. Taken in order, a part either continues where the
 * ones before it end or is added to rows that they fill; together they fill the constant. It bears the
 * name of the first part. The first failure (a tensor that is missing or has another shape) is kept for
 * vd_weights_error and NULL is returned; builders go on with it and their program is refused in the end. */
const vd_constant *vd_weights_constant(vd_weights *w, const int64_t dims[4], const vd_part *parts, int count);

/* One whole tensor. */
const vd_constant *vd_weights_vector(vd_weights *w, vd_name name, int64_t count);
const vd_constant *vd_weights_matrix(vd_weights *w, vd_name name, int64_t out, int64_t in);
const vd_constant *vd_weights_kernel(vd_weights *w, vd_name name, int64_t out, int64_t in, int64_t size);

/* sigmoid(mix_factor), read at once (7.8). */
float vd_weights_mix(vd_weights *w, vd_name name);
bool vd_weights_has(const vd_weights *w, vd_name name);

vd_code vd_weights_error(const vd_weights *w, vd_error *err); /* VD_OK or the first failure */

#endif
