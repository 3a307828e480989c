/* Grids on the host: see shim.h. One operating-system thread runs a grid; several may run grids at once. */
#include "shim.h"

#include "sanitizers.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <vector>

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

struct stack {
    void *memory; /* lowest address */
    void *strand;
};

struct fiber {
    struct stack stack; /* all NULL until it first runs */
    void *at;           /* saved stack pointer */
    enum state state;
    const char *call;         /* that it waits in */
    void *fake;               /* AddressSanitizer's own */
    unsigned rounds;          /* exchanges and barriers of its warp so far */
    unsigned phases;          /* barriers of its block */
    int groups;               /* of copies, committed */
    std::vector<copy> copies; /* not yet made */
};

struct exchange {
    alignas(16) unsigned char slots[2][warp * shim_slot]; /* the current call's, the one's before */
};

/* What no other block has. */
struct block_memory {
    std::vector<unsigned char> shared;
    struct {
        char block[2], warps[max_threads / warp][2]; /* the current barrier's, the one's before */
    } marks;
};

/* What runs a block; one for each operating-system thread. */
struct machine {
    fiber fibers[max_threads];
    exchange warps[max_threads / warp];
    std::vector<stack> stacks, spare[sanitizers::teams];
    block_memory *block;
    const std::function<void()> *thread;
    char launch, end; /* marks of a grid */
    fiber *running;
    void *scheduler; /* its stack pointer, while a fiber runs */
    void *scheduler_strand, *scheduler_fake;
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;

    ~machine() {
        for (stack s : stacks) {
            munmap(s.memory, stack_bytes);
            sanitizers::end_strand(s.strand);
        }
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

std::vector<stack> &spare_stacks() {
    return here.spare[blockIdx.x % sanitizers::teams];
}

stack take_stack() {
    if (spare_stacks().empty()) {
        void *memory = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            fail("no memory for", "a stack");
        here.stacks.push_back({memory, sanitizers::new_strand()});
        return here.stacks.back();
    }
    stack s = spare_stacks().back();
    spare_stacks().pop_back();
    return s;
}

/* From the running fiber to the scheduler. */
void give_way(enum state state, const char *call) {
    fiber *f = here.running;
    f->state = state;
    f->call = call;
    sanitizers::leaving(state == DONE ? nullptr : &f->fake, here.scheduler_stack, here.scheduler_stack_bytes);
    sanitizers::change_strand(here.scheduler_strand);
    shim_switch(&f->at, here.scheduler);
    sanitizers::entered(f->fake, &here.scheduler_stack, &here.scheduler_stack_bytes);
}

/* Never returns: the last give_way is not answered. Its frame stays on a stack that will be used again. */
__attribute__((no_sanitize("address"))) void first_frame() {
    sanitizers::entered(nullptr, &here.scheduler_stack, &here.scheduler_stack_bytes);
    sanitizers::acquire(&here.launch);
    (*here.thread)();
    sanitizers::release(&here.end);
    give_way(DONE, "the end");
    abort();
}

/* As if shim_switch had been called where first_frame begins. */
void prepare(fiber *f) {
    f->stack = take_stack();
    char *end = (char *)f->stack.memory + stack_bytes;
    void **top = (void **)end - 2; /* so that first_frame finds the ABI's alignment */
    *top-- = (void *)first_frame;
    for (int i = 0; i < 6; i++)
        *top-- = nullptr;
    f->at = top + 1;
}

void resume(int index) {
    fiber *f = &here.fibers[index];
    if (!f->stack.memory)
        prepare(f);
    threadIdx.x = (unsigned)index;
    here.running = f;
    sanitizers::leaving(&here.scheduler_fake, f->stack.memory, stack_bytes);
    sanitizers::change_strand(f->stack.strand);
    shim_switch(&here.scheduler, f->at);
    sanitizers::entered(here.scheduler_fake, nullptr, nullptr);
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
    auto memory = std::make_unique<block_memory>();
    memory->shared.assign(grid.shared, 0xff);
    here.block = memory.get();
    blockIdx.x = (unsigned)block;
    for (int i = 0; i < grid.threads; i++)
        here.fibers[i] = {};
    bool backwards = block % 2;
    while (run_phase(grid.threads, backwards))
        backwards = !backwards;
    for (int i = 0; i < grid.threads; i++)
        spare_stacks().push_back(here.fibers[i].stack);
}

void make_copy(const copy &c) {
    if (c.from) {
        memcpy(c.to, c.from, 16);
        sanitizers::did_read(c.from);
    } else
        memset(c.to, 0, 16);
    sanitizers::did_write(c.to);
}

} // namespace

bool shim_grid_valid(const shim_grid &grid) {
    return grid.blocks > 0 && grid.blocks <= INT32_MAX && grid.threads > 0 && grid.threads <= max_threads &&
           grid.threads % warp == 0 && grid.shared <= (size_t)limits().of(grid.kernel);
}

cudaError_t shim_raise_shared_limit(const void *kernel, int bytes) {
    return limits().raise(kernel, bytes);
}

void shim_run_grid(const shim_grid &grid, const std::function<void()> &thread) {
    sanitizers::unseen scheduling;
    here.thread = &thread;
    here.scheduler_strand = sanitizers::strand_in_use();
    blockDim = {(unsigned)grid.threads, 1, 1};
    gridDim = {(unsigned)grid.blocks, 1, 1};
    sanitizers::release(&here.launch);
    for (int64_t block = 0; block < grid.blocks; block++)
        run_block(grid, block);
    sanitizers::acquire(&here.end);
}

unsigned char *shim_shared_memory() {
    return here.block->shared.data();
}

void shim_wait_block() {
    char *mark = &here.block->marks.block[here.running->phases++ % 2];
    sanitizers::release(mark);
    give_way(AT_BLOCK, "__syncthreads");
    sanitizers::acquire(mark);
}

void shim_wait_warp() {
    char *mark = &here.block->marks.warps[threadIdx.x / warp][here.running->rounds++ % 2];
    sanitizers::release(mark);
    give_way(AT_WARP, "__syncwarp");
    sanitizers::acquire(mark);
}

const unsigned char *shim_exchange(const char *call, const void *mine, size_t bytes) {
    unsigned index = threadIdx.x;
    unsigned char *slots = here.warps[index / warp].slots[here.running->rounds++ % 2];
    {
        sanitizers::unseen copying;
        memcpy(slots + index % warp * shim_slot, mine, bytes);
    }
    give_way(AT_WARP, call);
    return slots;
}

void shim_expect_aligned(const char *call, const void *address) {
    if ((uintptr_t)address % 16 != 0)
        fail("an address is not 16-byte aligned in", call);
}

void shim_copy_later(void *to, const void *from, bool inside) {
    shim_expect_aligned("cp.async", to);
    shim_expect_aligned("cp.async", from);
    if (inside)
        sanitizers::did_read(from);
    memset(to, 0xff, 16);
    sanitizers::did_write(to);
    sanitizers::unseen queueing;
    here.running->copies.push_back({to, inside ? from : nullptr, here.running->groups});
}

void shim_commit_copies() {
    here.running->groups++;
}

void shim_wait_for_copies(int left) {
    fiber *f = here.running;
    auto late = f->copies.begin();
    for (; late != f->copies.end() && late->group < f->groups - left; ++late)
        make_copy(*late);
    sanitizers::unseen queueing;
    f->copies.erase(f->copies.begin(), late);
}
