/* What ThreadSanitizer is told about streams; nothing in other builds.
 *
 * A launch queue orders a command after its enqueuing and nothing else: the host learns of the device's
 * progress only through events, drains and notifications. The ring below it says more, for its indices are
 * acquired by both sides: a worker's progress would then order whatever its host thread enqueues next, on
 * any stream, and by luck of timing hide a missing wait. So the ring's own accesses are not looked at, and
 * each command is handed over by its slot alone. Events likewise: a wait is ordered after the completion
 * that it was enqueued for and not after later ones. */
#ifndef VD_DEVICE_CPU_TSAN_H
#define VD_DEVICE_CPU_TSAN_H

#include <stddef.h>

#if defined(__SANITIZE_THREAD__)

#include <sanitizer/tsan_interface.h>

/* In every ThreadSanitizer's library, in no header. */
const char *__tsan_default_suppressions(void); /* asked for by the sanitizer; in cpu_stream.c */
void __tsan_read_range(void *address, long bytes);
void __tsan_write_range(void *address, long bytes);
void AnnotateIgnoreReadsBegin(const char *file, int line); /* and writes */
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreSyncBegin(const char *file, int line);
void AnnotateIgnoreSyncEnd(const char *file, int line);

static inline void vd_tsan_blind(void) {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
}

static inline void vd_tsan_see(void) {
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

/* What was done before handing over comes before what is done after taking. */
static inline void vd_tsan_hand_over(void *slot) {
    __tsan_release(slot);
}

static inline void vd_tsan_take(void *slot) {
    __tsan_acquire(slot);
}

/* Code that the compiler did not instrument is about to touch the range. */
static inline void vd_tsan_announce(void *address, size_t bytes, int writes) {
    if (writes)
        __tsan_write_range(address, (long)bytes);
    else
        __tsan_read_range(address, (long)bytes);
}

#else

static inline void vd_tsan_blind(void) {}

static inline void vd_tsan_see(void) {}

static inline void vd_tsan_hand_over(void *slot) {
    (void)slot;
}

static inline void vd_tsan_take(void *slot) {
    (void)slot;
}

static inline void vd_tsan_announce(void *address, size_t bytes, int writes) {
    (void)address, (void)bytes, (void)writes;
}

#endif
#endif
