/* All tensors of one component (unet, vae, image_encoder): a single file or shards behind an index, fp16
 * variant preferred (svd-spec.md 3.1). */
#ifndef VD_MODEL_STORE_H
#define VD_MODEL_STORE_H

#include "base/error.h"
#include "base/log.h"
#include "model/safetensors.h"

typedef struct vd_store vd_store; /* immutable after opening; any thread may read */

/* `stem` is "diffusion_pytorch_model" or "model". Pickle, GGUF, LFS pointers and HTML in a weight file's
 * place are named. */
vd_code vd_store_open(const char *folder, const char *stem, vd_store **out, vd_error *err);
void vd_store_close(vd_store *store);

/* Finds `name` and checks its shape (dims[i] for rank entries; a [1] tensor also matches rank 0). Remembers
 * that it was asked for. */
typedef struct vd_tensor_ref {
    const vd_safetensors *file;
    const vd_st_tensor *tensor;
} vd_tensor_ref;
vd_code vd_store_find(vd_store *store, const char *name, int rank, const int64_t *dims, vd_tensor_ref *out,
                      vd_error *err);
bool vd_store_has(const vd_store *store, const char *name);

/* Tensors never asked for, as warnings (at most a few lines; known harmless ones are left out). */
void vd_store_warn_unused(const vd_store *store, const vd_log *log);

#endif
