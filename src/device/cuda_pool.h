/* Packed constants on the host, shared by the devices of a backend (cuda.h). */
#ifndef VD_DEVICE_CUDA_POOL_H
#define VD_DEVICE_CUDA_POOL_H

#include "device/cuda.h"

bool vd_cuda_same_packing(const vd_cuda_packing *a, const vd_cuda_packing *b);

/* One packed constant; its bytes stay while somebody holds it. */
typedef struct vd_cuda_packed vd_cuda_packed;
/* From any thread. Threads that want the same constant at the same time wait for the one that packs it. */
vd_code vd_cuda_pool_take(vd_cuda_pool *pool, const vd_cuda_packing *packing, vd_cuda_packed **entry,
                          const void **bytes, vd_error *err);
void vd_cuda_pool_give_back(vd_cuda_pool *pool, vd_cuda_packed *entry);

#endif
