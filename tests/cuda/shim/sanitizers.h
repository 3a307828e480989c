/* What sanitizers are told of the shim's fibers. To AddressSanitizer a fiber is a stack. To ThreadSanitizer
 * it is a thread of its own, and changing from one to another orders nothing: only __syncthreads, __syncwarp
 * and the two ends of a grid do. So it sees every race that a GPU's threads could have, in whichever order
 * the fibers ran. The shim itself is built without it, with SHIM_SHOWS_RACES instead. */
#ifndef VD_TESTS_CUDA_SHIM_SANITIZERS_H
#define VD_TESTS_CUDA_SHIM_SANITIZERS_H

#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef SHIM_SHOWS_RACES
#include <sanitizer/tsan_interface.h>

extern "C" { /* libtsan's, in no header of gcc's */
void __tsan_ignore_thread_begin(void);
void __tsan_ignore_thread_end(void);
void __tsan_read16(void *from);
void __tsan_write16(void *to);
}
#endif

namespace sanitizers {

/* ---- AddressSanitizer ---- */

#ifdef __SANITIZE_ADDRESS__
inline void leaving(void **fake, const void *stack, size_t bytes) {
    __sanitizer_start_switch_fiber(fake, stack, bytes);
}
inline void entered(void *fake, const void **stack, size_t *bytes) {
    __sanitizer_finish_switch_fiber(fake, stack, bytes);
}
#else
inline void leaving(void **, const void *, size_t) {}
inline void entered(void *, const void **, size_t *) {}
#endif

/* ---- ThreadSanitizer: a strand is what it takes for a thread ---- */

/* Strands take longer to make than a small block to run: a block leaves its own to the one `teams` later. Two
 * such blocks it takes for ordered, no others. */
#ifdef SHIM_SHOWS_RACES
constexpr int teams = 3;

inline void *strand_in_use() {
    return __tsan_get_current_fiber();
}
inline void *new_strand() {
    return __tsan_create_fiber(0);
}
inline void end_strand(void *strand) {
    __tsan_destroy_fiber(strand);
}
inline void change_strand(void *to) {
    __tsan_switch_to_fiber(to, __tsan_switch_to_fiber_no_sync);
}

/* What a strand did before it released a mark comes before what others do once they acquired it. */
inline void release(char *mark) {
    __tsan_release(mark);
}
inline void acquire(char *mark) {
    __tsan_acquire(mark);
}

/* The 16 bytes of a copy that the shim makes for a thread. */
inline void did_read(const void *from) {
    __tsan_read16(const_cast<void *>(from));
}
inline void did_write(void *to) {
    __tsan_write16(to);
}

/* While one lives, what its strand does, calls of the C library too, is the shim's own business. */
struct unseen {
    unseen() {
        __tsan_ignore_thread_begin();
    }
    ~unseen() {
        __tsan_ignore_thread_end();
    }
};
#else
constexpr int teams = 1;

inline void *strand_in_use() {
    return nullptr;
}
inline void *new_strand() {
    return nullptr;
}
inline void end_strand(void *) {}
inline void change_strand(void *) {}
inline void release(char *) {}
inline void acquire(char *) {}
inline void did_read(const void *) {}
inline void did_write(void *) {}

struct unseen {
    unseen() {}
};
#endif

} // namespace sanitizers

#endif
