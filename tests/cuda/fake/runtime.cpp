/* See fake.h. */
#include "cuda/fake/fake.h"
#include "cuda/shim/enqueue.h"

extern "C" {
#include "device/cpu_tsan.h"
}

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int max_devices = 8;
constexpr size_t flip_from = 64 << 10; /* copies of at least this size are damaged */

typedef std::function<void()> task;

/* Waiting for these says nothing more to ThreadSanitizer than what is handed over by hand (cpu_tsan.h). */
struct blind {
    blind() {
        vd_tsan_blind();
    }
    ~blind() {
        vd_tsan_see();
    }
};

/* Something that will have happened. */
struct ticket {
    std::mutex lock;
    std::condition_variable changed;
    bool done = false;

    void finish() {
        vd_tsan_hand_over(this);
        blind b;
        std::lock_guard<std::mutex> hold(lock);
        done = true;
        changed.notify_all();
    }
    void await() {
        {
            blind b;
            std::unique_lock<std::mutex> hold(lock);
            changed.wait(hold, [this] { return done; });
        }
        vd_tsan_take(this);
    }
    bool finished() {
        bool now;
        {
            blind b;
            std::lock_guard<std::mutex> hold(lock);
            now = done;
        }
        if (now)
            vd_tsan_take(this);
        return now;
    }
};
typedef std::shared_ptr<ticket> ticket_ref;

struct block {
    size_t bytes;
    int device; /* -1: pinned host memory */
};

struct failure {
    int left;
    cudaError_t result;
};

struct machine {
    int devices = 4;
    size_t memory = (size_t)8 << 30;
    bool synchronous = false;
    fake_peer peers[max_devices][max_devices] = {};
    bool enabled[max_devices][max_devices] = {};
    std::atomic<int> broken[max_devices] = {};
    size_t used[max_devices] = {};
    std::map<const char *, block> blocks; /* by address */
    std::map<std::string, failure> failures;
    std::map<std::string, int> calls;
    std::map<CUgraph_st *, int> captures; /* open ones, and their devices */
    int open = 0;
    std::mutex lock;

    machine() {
        set_peers();
    }
    void set_peers() {
        for (int i = 0; i < max_devices; i++)
            for (int j = 0; j < max_devices; j++)
                peers[i][j] = i == 3 || j == 3 ? FAKE_PEER_NONE : FAKE_PEER_GOOD;
        peers[1][2] = FAKE_PEER_FLIPS;
    }
};

machine &m = *new machine; /* stays for what a lost device leaves behind */
thread_local int current;
thread_local cudaError_t last;

cudaError_t give(cudaError_t result) {
    if (result != cudaSuccess)
        last = result;
    return result;
}

/* What every call of the runtime begins with: counts it; not cudaSuccess when it is to fail. */
cudaError_t begin(const char *function, int device) {
    std::lock_guard<std::mutex> hold(m.lock);
    m.calls[function]++;
    auto f = m.failures.find(function);
    if (f != m.failures.end() && f->second.left > 0 && --f->second.left == 0)
        return give(f->second.result);
    return device < 0 ? cudaSuccess : give((cudaError_t)m.broken[device].load());
}

#define BEGIN(device)                                                                                        \
    do {                                                                                                     \
        cudaError_t begun = begin(__func__, device);                                                         \
        if (begun != cudaSuccess)                                                                            \
            return begun;                                                                                    \
    } while (0)

void count_open(int change) {
    std::lock_guard<std::mutex> hold(m.lock);
    m.open += change;
}

[[noreturn]] void refuse(const char *what) {
    fprintf(stderr, "fake CUDA: %s\n", what);
    abort();
}

/* The block that the range lies in; device -2: none. Under the machine's lock. */
block find(const void *memory, size_t bytes) {
    auto next = m.blocks.upper_bound((const char *)memory);
    if (next == m.blocks.begin())
        return {0, -2};
    auto b = std::prev(next);
    if ((const char *)memory + bytes > b->first + b->second.bytes)
        return {0, -2};
    return b->second;
}

int owner(const void *memory, size_t bytes) {
    std::lock_guard<std::mutex> hold(m.lock);
    return find(memory, bytes).device;
}

} // namespace

/* ---- streams ---- */

struct CUgraph_st {
    std::vector<task> nodes;
    std::atomic<bool> spoilt{false}; /* a call has waited for the whole GPU meanwhile */
};

struct CUgraphExec_st {
    std::vector<task> nodes;
    std::atomic<int> running{0};
};

struct CUevent_st {
    int device;
    std::mutex lock;
    ticket_ref last; /* of the latest record; empty: never recorded */
};

struct CUstream_st {
    int device;
    std::unique_ptr<CUgraph_st> capture;
    std::mutex lock;
    std::condition_variable changed;
    std::deque<task *> queue;
    int pending = 0; /* tasks not yet done */
    bool closing = false;
    std::thread worker;
};

namespace {

/* Every task is handed over by its address, and the stream's progress by the stream's. */
void work(CUstream_st *s) {
    for (;;) {
        task *t = nullptr;
        {
            blind b;
            std::unique_lock<std::mutex> hold(s->lock);
            s->changed.wait(hold, [s] { return s->closing || !s->queue.empty(); });
            if (s->queue.empty())
                return;
            t = s->queue.front();
            s->queue.pop_front();
        }
        vd_tsan_take(t);
        (*t)();
        delete t;
        vd_tsan_hand_over(s);
        blind b;
        std::lock_guard<std::mutex> hold(s->lock);
        s->pending--;
    }
}

void push(CUstream_st *s, task work) {
    if (m.synchronous) {
        work();
        return;
    }
    task *t = new task(std::move(work));
    vd_tsan_hand_over(t);
    blind b;
    std::lock_guard<std::mutex> hold(s->lock);
    s->queue.push_back(t);
    s->pending++;
    s->changed.notify_all();
}

/* What a device that stopped leaves out. */
void enqueue(CUstream_st *s, task work) {
    if (s->capture) {
        s->capture->nodes.push_back(std::move(work));
        return;
    }
    push(s, [s, work = std::move(work)] {
        if (m.broken[s->device].load() == cudaSuccess)
            work();
    });
}

ticket_ref mark(CUstream_st *s) {
    auto t = std::make_shared<ticket>();
    push(s, [t] { t->finish(); });
    return t;
}

} // namespace

void shim_enqueue(cudaStream_t stream, task work) {
    if (!stream) {
        work();
        return;
    }
    if (stream->device != current)
        refuse("a kernel was launched while another device is current");
    enqueue(stream, std::move(work));
}

namespace {

/* A call that waits for a whole GPU, from any thread. */
void wait_for_all_of(int device) {
    std::lock_guard<std::mutex> hold(m.lock);
    for (auto &c : m.captures)
        if (c.second == device)
            c.first->spoilt = true;
}

} // namespace

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    BEGIN(current);
    if (flags != cudaStreamNonBlocking)
        refuse("a stream that waits for the default stream");
    auto *s = new CUstream_st;
    s->device = current;
    if (!m.synchronous)
        s->worker = std::thread(work, s);
    count_open(1);
    *out = s;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s) {
    BEGIN(-1);
    {
        blind b;
        std::lock_guard<std::mutex> hold(s->lock);
        s->closing = true;
        s->changed.notify_all();
    }
    if (s->worker.joinable())
        s->worker.join();
    delete s;
    count_open(-1);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    if (s == cudaStreamLegacy) { /* what it has done, it did at once */
        BEGIN(current);
        return cudaSuccess;
    }
    BEGIN(s->device);
    if (s->capture)
        return give(cudaErrorStreamCaptureUnsupported);
    mark(s)->await();
    return give((cudaError_t)m.broken[s->device].load());
}

cudaError_t cudaStreamQuery(cudaStream_t s) {
    BEGIN(s->device);
    int pending;
    {
        blind b;
        std::lock_guard<std::mutex> hold(s->lock);
        pending = s->pending;
    }
    if (pending)
        return give(cudaErrorNotReady);
    vd_tsan_take(s);
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t function, void *argument) {
    BEGIN(s->device);
    enqueue(s, [=] { function(argument); });
    return cudaSuccess;
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
    BEGIN(current);
    if (flags != cudaEventDisableTiming)
        refuse("an event that takes the time");
    *out = new CUevent_st;
    (*out)->device = current;
    count_open(1);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e) {
    BEGIN(-1);
    delete e;
    count_open(-1);
    return cudaSuccess;
}

/* Events complete on a device that stopped too, so that nothing waits for it for ever. */
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    BEGIN(s->device);
    if (e->device != s->device || s->capture)
        return give(cudaErrorInvalidResourceHandle);
    ticket_ref t = mark(s);
    std::lock_guard<std::mutex> hold(e->lock);
    e->last = t;
    return cudaSuccess;
}

namespace {

ticket_ref latest(cudaEvent_t e) {
    std::lock_guard<std::mutex> hold(e->lock);
    return e->last;
}

} // namespace

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    BEGIN(s->device);
    ticket_ref t = latest(e);
    if (t)
        push(s, [t] { t->await(); });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    BEGIN(e->device);
    ticket_ref t = latest(e);
    if (t)
        t->await();
    return cudaSuccess;
}

/* ---- memory ---- */

namespace {

cudaError_t allocate(void **out, size_t bytes, int device) {
    std::lock_guard<std::mutex> hold(m.lock);
    if (device >= 0 && bytes > m.memory - m.used[device])
        return give(cudaErrorMemoryAllocation);
    size_t whole = (bytes + 255) / 256 * 256;
    char *memory = (char *)aligned_alloc(256, whole ? whole : 256);
    if (!memory)
        return give(cudaErrorMemoryAllocation);
    if (device >= 0) {
        memset(memory, 0xff, bytes);
        m.used[device] += bytes;
    }
    m.blocks[memory] = {bytes, device};
    m.open++;
    *out = memory;
    return cudaSuccess;
}

cudaError_t release(void *memory, bool pinned) {
    if (!memory)
        return cudaSuccess;
    std::lock_guard<std::mutex> hold(m.lock);
    auto b = m.blocks.find((const char *)memory);
    if (b == m.blocks.end() || (b->second.device < 0) != pinned)
        return give(cudaErrorInvalidValue);
    if (!pinned)
        m.used[b->second.device] -= b->second.bytes;
    m.blocks.erase(b);
    m.open--;
    free(memory);
    return cudaSuccess;
}

} // namespace

cudaError_t cudaMalloc(void **out, size_t bytes) {
    BEGIN(current);
    wait_for_all_of(current);
    return allocate(out, bytes, current);
}

cudaError_t cudaFree(void *memory) {
    BEGIN(-1);
    wait_for_all_of(current);
    return release(memory, false);
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
    BEGIN(current);
    wait_for_all_of(current);
    return allocate(out, bytes, -1);
}

cudaError_t cudaFreeHost(void *memory) {
    BEGIN(-1);
    wait_for_all_of(current);
    return release(memory, true);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    BEGIN(current);
    std::lock_guard<std::mutex> hold(m.lock);
    *total = m.memory;
    *free_bytes = m.memory - m.used[current];
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s) {
    BEGIN(s->device);
    if (owner(to, bytes) != s->device)
        return give(cudaErrorInvalidValue);
    enqueue(s, [=] { memset(to, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    BEGIN(current);
    if (owner(to, bytes) != current)
        return give(cudaErrorInvalidValue);
    memset(to, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s) {
    BEGIN(s->device);
    int target = kind == cudaMemcpyDeviceToHost ? -1 : s->device;
    int source = kind == cudaMemcpyHostToDevice ? -1 : s->device;
    if (owner(to, bytes) != target || owner(from, bytes) != source)
        return give(cudaErrorInvalidValue);
    enqueue(s, [=] { memmove(to, from, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    BEGIN(current);
    wait_for_all_of(current);
    if ((kind != cudaMemcpyDeviceToHost && owner(to, bytes) < 0) ||
        (kind != cudaMemcpyHostToDevice && owner(from, bytes) < 0))
        return give(cudaErrorInvalidValue);
    memmove(to, from, bytes);
    return cudaSuccess;
}

/* What the other copies without a stream leave behind is there already. */
cudaError_t cudaDeviceSynchronize() {
    BEGIN(current);
    wait_for_all_of(current);
    return cudaSuccess;
}

/* ---- between devices ---- */

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    BEGIN(device);
    *can = device != peer && m.peers[device][peer] != FAKE_PEER_NONE;
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
    BEGIN(current);
    if (m.peers[current][peer] == FAKE_PEER_NONE)
        return give(cudaErrorPeerAccessUnsupported);
    if (m.enabled[current][peer])
        return give(cudaErrorPeerAccessAlreadyEnabled);
    m.enabled[current][peer] = true;
    return cudaSuccess;
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes,
                                cudaStream_t s) {
    BEGIN(s->device);
    if (owner(to, bytes) != to_device || owner(from, bytes) != from_device)
        return give(cudaErrorInvalidValue);
    fake_peer way = m.enabled[from_device][to_device] ? m.peers[from_device][to_device] : FAKE_PEER_GOOD;
    enqueue(s, [=] {
        if (way != FAKE_PEER_LOSES)
            memcpy(to, from, bytes);
        if (way == FAKE_PEER_FLIPS && bytes >= flip_from)
            ((char *)to)[bytes / 3] ^= 4;
    });
    return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    BEGIN(s->device);
    if (s->capture)
        return give(cudaErrorIllegalState);
    s->capture.reset(new CUgraph_st);
    std::lock_guard<std::mutex> hold(m.lock);
    m.captures[s->capture.get()] = s->device;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out) {
    std::unique_ptr<CUgraph_st> graph = std::move(s->capture);
    {
        std::lock_guard<std::mutex> hold(m.lock);
        m.captures.erase(graph.get());
    }
    BEGIN(s->device);
    if (!graph)
        return give(cudaErrorIllegalState);
    if (graph->spoilt)
        return give(cudaErrorStreamCaptureInvalidated);
    *out = graph.release();
    count_open(1);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    BEGIN(-1);
    delete graph;
    count_open(-1);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    BEGIN(current);
    *out = new CUgraphExec_st;
    (*out)->nodes = graph->nodes;
    count_open(1);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) {
    BEGIN(-1);
    delete x;
    count_open(-1);
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t s) {
    BEGIN(s->device);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    BEGIN(s->device);
    enqueue(s, [x] {
        if (x->running.fetch_add(1, std::memory_order_relaxed) != 0)
            refuse("a graph was launched while it runs");
        for (const task &node : x->nodes)
            node();
        x->running.fetch_sub(1, std::memory_order_relaxed);
    });
    return cudaSuccess;
}

/* ---- devices and errors ---- */

cudaError_t cudaSetDevice(int device) {
    BEGIN(-1);
    if (device < 0 || device >= m.devices)
        return give(cudaErrorInvalidDevice);
    current = device;
    return give((cudaError_t)m.broken[device].load());
}

cudaError_t cudaGetDeviceCount(int *count) {
    BEGIN(-1);
    *count = m.devices;
    return m.devices ? cudaSuccess : give(cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    BEGIN(-1);
    if (device < 0 || device >= m.devices)
        return give(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "Fake GPU");
    p->totalGlobalMem = m.memory;
    return cudaSuccess;
}

/* Where no machine has a device, so that nothing is found in its stead. */
cudaError_t cudaDeviceGetPCIBusId(char *bus, int length, int device) {
    BEGIN(-1);
    snprintf(bus, (size_t)length, "FFFF:F%d:1F.7", device);
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
    BEGIN(-1);
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    BEGIN(-1);
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void) {
    cudaError_t result = last;
    last = cudaSuccess;
    return result;
}

const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorIllegalAddress:
        return "cudaErrorIllegalAddress";
    default:
        return "cudaErrorOfSomeKind";
    }
}

const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered"
                                            : "what happened in words";
}

/* Of cuDNN, whose products are replaced. */
extern "C" size_t cudnnGetVersion(void) {
    return 91900;
}

/* ---- fake.h ---- */

void fake_cuda_reset(void) {
    std::lock_guard<std::mutex> hold(m.lock);
    if (m.open)
        refuse("reset while something is open");
    m.devices = 4;
    m.memory = (size_t)8 << 30;
    m.synchronous = false;
    m.failures.clear();
    m.calls.clear();
    m.set_peers();
    for (int i = 0; i < max_devices; i++) {
        m.broken[i] = cudaSuccess;
        for (int j = 0; j < max_devices; j++)
            m.enabled[i][j] = false;
    }
}

void fake_cuda_devices(int count) {
    m.devices = count;
}

void fake_cuda_memory(size_t bytes) {
    m.memory = bytes;
}

void fake_cuda_peer(int from, int to, fake_peer kind) {
    m.peers[from][to] = kind;
}

void fake_cuda_synchronous(bool on) {
    m.synchronous = on;
}

void fake_cuda_fail(const char *function, int k, cudaError_t result) {
    std::lock_guard<std::mutex> hold(m.lock);
    m.failures[function] = {k, result};
}

void fake_cuda_break(int device, cudaError_t result) {
    m.broken[device] = result;
}

int fake_cuda_open(void) {
    std::lock_guard<std::mutex> hold(m.lock);
    return m.open;
}

int fake_cuda_calls(const char *function) {
    std::lock_guard<std::mutex> hold(m.lock);
    return m.calls[function];
}
