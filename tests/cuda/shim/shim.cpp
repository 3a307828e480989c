/* Grids on the host: see shim.h. One operating-system thread runs a grid; several may run grids at once. */
#include "shim.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#error "switching fibers is written for x86-64, as is the CPU backend"
#endif

thread_local uint3 threadIdx, blockIdx, blockDim, gridDim;

/* Saves the callee's registers and stack, and goes on where `to` was saved. */
extern "C" void shim_switch(void **from, void *to);
asm(R"(
.text
.globl shim_switch
.hidden shim_switch
.type shim_switch, @function
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size shim_switch, .-shim_switch
)");

namespace {

constexpr int warp = 32, max_threads = 1024;
constexpr size_t stack_bytes = 128 << 10;
constexpr int plain_shared = 48 << 10, max_shared = 99 << 10; /* the least of the GPUs that we support */

[[noreturn]] void fail(const char *what, const char *call) {
    fprintf(stderr, "shim: block %u, thread %u: %s %s\n", blockIdx.x, threadIdx.x, what, call);
    abort();
}

enum state { READY, AT_WARP, AT_BLOCK, DONE };

struct copy {
    void *to;
    const void *from; /* NULL: zeros */
    int group;
};

struct fiber {
    void *stack; /* lowest address; NULL until it first runs */
    void *at;    /* saved stack pointer */
    enum state state;
    const char *call;         /* that it waits in */
    void *fake;               /* AddressSanitizer's own */
    unsigned rounds;          /* exchanges so far */
    int groups;               /* of copies, committed */
    std::vector<copy> copies; /* not yet made */
};

struct exchange {
    alignas(16) unsigned char slots[2][warp * shim_slot]; /* the current call's, the one's before */
};

/* What runs a block; one for each operating-system thread. */
struct machine {
    fiber fibers[max_threads];
    exchange warps[max_threads / warp];
    std::vector<void *> stacks, spare;
    std::vector<unsigned char> *shared;
    const std::function<void()> *thread;
    fiber *running;
    void *scheduler; /* its stack pointer, while a fiber runs */
    void *scheduler_fake;
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;

    ~machine() {
        for (void *stack : stacks)
            munmap(stack, stack_bytes);
    }
};

thread_local machine here;

/* Bytes of shared memory that launches of each kernel may have. */
class shared_limits {
    std::mutex lock;
    std::map<const void *, int> raised;

  public:
    int of(const void *kernel) {
        std::lock_guard<std::mutex> guard(lock);
        auto found = raised.find(kernel);
        return found == raised.end() ? plain_shared : found->second;
    }

    cudaError_t raise(const void *kernel, int bytes) {
        std::lock_guard<std::mutex> guard(lock);
        int &limit = raised.emplace(kernel, plain_shared).first->second;
        if (bytes < limit || bytes > max_shared)
            return cudaErrorInvalidValue;
        limit = bytes;
        return cudaSuccess;
    }
};

shared_limits &limits() {
    static shared_limits all;
    return all;
}

void *take_stack() {
    if (here.spare.empty()) {
        void *stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED)
            fail("no memory for", "a stack");
        here.stacks.push_back(stack);
        return stack;
    }
    void *stack = here.spare.back();
    here.spare.pop_back();
    return stack;
}

#ifdef __SANITIZE_ADDRESS__
void leaving(void **fake, const void *stack, size_t bytes) {
    __sanitizer_start_switch_fiber(fake, stack, bytes);
}
void entered(void *fake, const void **stack, size_t *bytes) {
    __sanitizer_finish_switch_fiber(fake, stack, bytes);
}
#else
void leaving(void **, const void *, size_t) {}
void entered(void *, const void **, size_t *) {}
#endif

/* From the running fiber to the scheduler. */
void give_way(enum state state, const char *call) {
    fiber *f = here.running;
    f->state = state;
    f->call = call;
    leaving(state == DONE ? nullptr : &f->fake, here.scheduler_stack, here.scheduler_stack_bytes);
    shim_switch(&f->at, here.scheduler);
    entered(f->fake, &here.scheduler_stack, &here.scheduler_stack_bytes);
}

/* Never returns: the last give_way is not answered. Its frame stays on a stack that will be used again. */
__attribute__((no_sanitize("address"))) void first_frame() {
    entered(nullptr, &here.scheduler_stack, &here.scheduler_stack_bytes);
    (*here.thread)();
    give_way(DONE, "the end");
    abort();
}

/* As if shim_switch had been called where first_frame begins. */
void prepare(fiber *f) {
    f->stack = take_stack();
    void **top =
        (void **)((char *)f->stack + stack_bytes) - 2; /* so that first_frame finds the ABI's alignment */
    *top-- = (void *)first_frame;
    for (int i = 0; i < 6; i++)
        *top-- = nullptr;
    f->at = top + 1;
}

void resume(int index) {
    fiber *f = &here.fibers[index];
    if (!f->stack)
        prepare(f);
    threadIdx.x = (unsigned)index;
    here.running = f;
    leaving(&here.scheduler_fake, f->stack, stack_bytes);
    shim_switch(&here.scheduler, f->at);
    entered(here.scheduler_fake, nullptr, nullptr);
    if (f->state == DONE)
        here.spare.push_back(f->stack);
}

/* Runs a warp until all of its lanes are done or at the block's barrier. */
void run_warp(fiber *lanes, bool backwards) {
    for (bool more = true; more; backwards = !backwards) {
        int waiting = 0;
        for (int i = 0; i < warp; i++) {
            int lane = backwards ? warp - 1 - i : i;
            if (lanes[lane].state == READY)
                resume((int)(lanes - here.fibers) + lane);
        }
        for (int lane = 0; lane < warp; lane++)
            waiting += lanes[lane].state == AT_WARP;
        if (waiting != 0 && waiting != warp)
            fail("some lanes of its warp did not come to", here.running->call);
        for (int lane = 0; waiting && lane < warp; lane++) {
            if (strcmp(lanes[lane].call, lanes[0].call) != 0)
                fail("other lanes of its warp are not at", lanes[lane].call);
            lanes[lane].state = READY;
        }
        more = waiting != 0;
    }
}

/* Runs all warps up to the next barrier; false when every thread is done. */
bool run_phase(int threads, bool backwards) {
    bool more = false;
    for (int i = 0; i < threads; i += warp)
        run_warp(here.fibers + (backwards ? threads - warp - i : i), backwards);
    for (int i = 0; i < threads; i++)
        if (here.fibers[i].state == AT_BLOCK) {
            here.fibers[i].state = READY;
            more = true;
        }
    return more;
}

void run_block(const shim_grid &grid, int64_t block) {
    std::vector<unsigned char> shared(grid.shared, 0xff);
    here.shared = &shared;
    blockIdx.x = (unsigned)block;
    for (int i = 0; i < grid.threads; i++)
        here.fibers[i] = {};
    bool backwards = block % 2;
    while (run_phase(grid.threads, backwards))
        backwards = !backwards;
}

} // namespace

bool shim_grid_valid(const shim_grid &grid) {
    return grid.blocks > 0 && grid.blocks <= INT32_MAX && grid.threads > 0 && grid.threads <= max_threads &&
           grid.threads % warp == 0 && grid.shared <= (size_t)limits().of(grid.kernel);
}

int shim_shared_limit(const void *kernel) {
    return limits().of(kernel);
}

cudaError_t shim_raise_shared_limit(const void *kernel, int bytes) {
    return limits().raise(kernel, bytes);
}

void shim_run_grid(const shim_grid &grid, const std::function<void()> &thread) {
    here.thread = &thread;
    blockDim = {(unsigned)grid.threads, 1, 1};
    gridDim = {(unsigned)grid.blocks, 1, 1};
    for (int64_t block = 0; block < grid.blocks; block++)
        run_block(grid, block);
}

unsigned char *shim_shared_memory() {
    return here.shared->data();
}

void shim_wait_block() {
    give_way(AT_BLOCK, "__syncthreads");
}

const unsigned char *shim_exchange(const char *call, const void *mine, size_t bytes) {
    unsigned index = threadIdx.x;
    unsigned char *slots = here.warps[index / warp].slots[here.running->rounds++ % 2];
    if (bytes > 0)
        memcpy(slots + index % warp * shim_slot, mine, bytes);
    give_way(AT_WARP, call);
    return slots;
}

void shim_copy_later(void *to, const void *from, bool inside) {
    here.running->copies.push_back({to, inside ? from : nullptr, here.running->groups});
}

void shim_commit_copies() {
    here.running->groups++;
}

void shim_wait_for_copies(int left) {
    fiber *f = here.running;
    auto late = f->copies.begin();
    for (; late != f->copies.end() && late->group < f->groups - left; ++late)
        if (late->from)
            memcpy(late->to, late->from, 16);
        else
            memset(late->to, 0, 16);
    f->copies.erase(f->copies.begin(), late);
}
