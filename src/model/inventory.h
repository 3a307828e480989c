/* Names and shapes of all tensors that the reference saves for a configuration (svd-spec.md 3.2 to 3.4). */
#ifndef VD_MODEL_INVENTORY_H
#define VD_MODEL_INVENTORY_H

#include "model/config.h"

#include <stdint.h>

enum { VD_TENSOR_NAME_CAP = 160, VD_TENSOR_MAX_RANK = 5 };

typedef struct vd_named_shape {
    char name[VD_TENSOR_NAME_CAP];
    int rank;
    int64_t dims[VD_TENSOR_MAX_RANK];
} vd_named_shape;

typedef struct vd_inventory {
    vd_named_shape *items; /* sorted by name */
    int count, capacity;
    bool failed; /* out of memory */
} vd_inventory;

vd_code vd_inventory_unet(const vd_unet_config *unet, vd_inventory *out, vd_error *err);
vd_code vd_inventory_vae(const vd_vae_config *vae, vd_inventory *out, vd_error *err);
vd_code vd_inventory_clip(const vd_clip_config *clip, vd_inventory *out, vd_error *err);
void vd_inventory_free(vd_inventory *inventory);

int64_t vd_shape_elements(const vd_named_shape *shape);

#endif
