/* Tensor cores and the copies and loads that feed them, for 16-bit types. The layouts are those of PTX: of
 * a 16 x 16 matrix A, lane 4r + q holds {row r, columns 2q and 2q + 1}, {row r + 8, the same}, {row r, 8
 * columns on}, {row r + 8, 8 columns on}; of a 16 x 8 matrix B {rows 2q and 2q + 1, column r}, {8 rows
 * on}; of 16 x 8 sums {row r, columns 2q and 2q + 1}, {row r + 8, the same}. */
#ifndef VD_KERNELS_MMA_CUH
#define VD_KERNELS_MMA_CUH

#include "kernels/device.cuh"

namespace vdk {

/* Two neighbours in a register, the first in its low half. */
template <class T> __device__ __forceinline__ uint32_t rounded_pair(float first, float second) {
    const float x[2] = {first, second};
    pack<T, 2> two;
    round_all(x, two);
    uint32_t bits;
    memcpy(&bits, &two, sizeof bits);
    return bits;
}

#ifdef __CUDACC__ /* the tests' host shim has its own */

/* sums += A * B */
template <class T>
__device__ __forceinline__ void mma(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if (std::is_same<T, bf16>::value)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, "
            "%9}, "
            "{%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8 x 8 matrices from shared memory: lane l gives the address of row l % 8 of matrix l / 8, 16 bytes. */
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

/* The same, each transposed. */
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

/* Starts to copy 16 bytes from global to shared memory; zeros if not `inside`. Groups of copies arrive in
 * the order of their commits; barriers make them visible to other threads. */
__device__ __forceinline__ void copy_async(void *to, const void *from, bool inside) {
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
        "l"(from), "r"(inside ? 16 : 0)
        : "memory");
}

__device__ __forceinline__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most `left` groups are on their way. */
template <int left> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

#endif

} // namespace vdk

#endif
