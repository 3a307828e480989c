/* A stand-in for the CUDA runtime on host memory: the calls that vdpp makes, on devices that are not there.
 * Streams run on a thread each, so that only what orders them in CUDA orders them here; under ThreadSanitizer
 * a forgotten wait is a data race. Fresh device memory is full of NaN. What the real runtime would refuse or
 * silently make slow is refused: asynchronous copies of memory that is not pinned, copies past the end of an
 * allocation or to another device's, kernels launched while another device is current, events recorded on a
 * foreign stream, a graph launched while it runs, a capture while some thread waits for the whole GPU. */
#ifndef VD_TESTS_CUDA_FAKE_H
#define VD_TESTS_CUDA_FAKE_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fake_peer {
    FAKE_PEER_GOOD,
    FAKE_PEER_NONE,  /* no access; copies still work, as the driver goes through the host */
    FAKE_PEER_FLIPS, /* with access enabled, large copies arrive with a bit flipped */
    FAKE_PEER_LOSES, /* with access enabled, copies report success and arrive nowhere */
} fake_peer;

/* The machine as it is at first: 4 devices of 8 GiB, streams with threads. 0, 1 and 2 reach each other, but
 * what goes from 1 to 2 arrives with bits flipped; 3 reaches nobody. Ends injected failures. Nothing may be
 * open. */
void fake_cuda_reset(void);
void fake_cuda_devices(int count); /* at most 8 */
void fake_cuda_memory(size_t bytes);
void fake_cuda_peer(int from, int to, fake_peer kind);
void fake_cuda_synchronous(bool on); /* everything happens when it is enqueued */
/* The k-th call of the named function from now on, counted from 1, returns `result` and does nothing. */
void fake_cuda_fail(const char *function, int k, cudaError_t result);
/* The device stops: what is enqueued is dropped, and calls that concern it return `result` until reset. */
void fake_cuda_break(int device, cudaError_t result);
int fake_cuda_open(void); /* streams, events, graphs and allocations that nobody has closed */
int fake_cuda_calls(const char *function); /* since the reset */

#ifdef __cplusplus
}
#endif

#endif
