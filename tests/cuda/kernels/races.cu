/* That ThreadSanitizer sees a race of a GPU's threads through the host shim: `test_kernel_races NAME` runs a
 * kernel without the order it needs, and must be reported; without NAME all have it, and none may be. */
#include "kernels/mma.cuh"

#include <cstdio>
#include <cstring>

namespace vdk {

constexpr int threads = 64;

struct alignas(16) cell {
    int v[4];
};

/* What an optimiser may not leave out. */
__device__ int look(const cell *cells, int i) {
    return *static_cast<const volatile int *>(cells[i].v);
}

/* Values go from lane to lane, but memory is not ordered. */
__global__ void within_warp(bool ordered, cell *) {
    VDK_SHARED_MEMORY(memory);
    cell *cells = reinterpret_cast<cell *>(memory);
    int i = threadIdx.x;
    cells[i].v[0] = __shfl_sync(all_lanes, i, 0);
    if (ordered)
        __syncwarp();
    __shfl_sync(all_lanes, i, 0);
    look(cells, i ^ 1);
}

__global__ void within_block(bool ordered, cell *) {
    VDK_SHARED_MEMORY(memory);
    cell *cells = reinterpret_cast<cell *>(memory);
    int i = threadIdx.x;
    cells[i].v[0] = i;
    __syncwarp();
    if (ordered)
        __syncthreads();
    look(cells, i ^ warp_size);
}

/* Barriers of two blocks have nothing to do with each other. */
__global__ void between_blocks(bool ordered, cell *cells) {
    __syncthreads();
    if (threadIdx.x == 0)
        cells[ordered ? blockIdx.x : 0].v[0] = 1;
    __syncthreads();
}

/* A copy may arrive before anyone waits for it. */
__global__ void early_copy(bool ordered, cell *from) {
    VDK_SHARED_MEMORY(memory);
    cell *cells = reinterpret_cast<cell *>(memory);
    int i = threadIdx.x;
    look(cells, i ^ 1);
    if (ordered)
        __syncwarp();
    copy_async(cells + i, from + i, true);
    commit_copies();
    __syncwarp();
    wait_for_copies<0>();
}

/* Nor need it have arrived before its own thread waited, whatever others did. */
__global__ void late_copy(bool ordered, cell *from) {
    VDK_SHARED_MEMORY(memory);
    cell *cells = reinterpret_cast<cell *>(memory);
    int i = threadIdx.x;
    copy_async(cells + i, from + i, true);
    commit_copies();
    if (ordered)
        wait_for_copies<0>();
    __syncwarp();
    look(cells, i ^ 1);
    wait_for_copies<0>();
}

} // namespace vdk

using namespace vdk;

int main(int count, char **names) {
    static const struct {
        const char *name;
        void (*kernel)(bool, cell *);
    } races[] = {{"within_warp", within_warp},
                 {"within_block", within_block},
                 {"between_blocks", between_blocks},
                 {"early_copy", early_copy},
                 {"late_copy", late_copy}};
    static cell cells[threads];
    bool known = count == 1;
    for (auto &race : races) {
        bool asked = count == 2 && strcmp(names[1], race.name) == 0;
        known = known || asked;
        if ((count == 1 || asked) && launch(race.kernel, 2, threads, sizeof cells, nullptr, !asked, cells))
            return 1;
    }
    if (!known)
        puts("no such race");
    return !known;
}
