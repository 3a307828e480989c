#include "base/thread.h"

#include <errno.h>
#include <hwloc.h>
#include <hwloc/linux.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Creates the thread already pinned, so that memory it touches first is near it; unpinned when refused. */
static int create_pinned(pthread_t *handle, int cpu, void *(*body)(void *), void *argument) {
    pthread_attr_t attributes;
    int error = EINVAL;
    if (cpu >= 0 && cpu < CPU_SETSIZE && pthread_attr_init(&attributes) == 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        error = pthread_attr_setaffinity_np(&attributes, sizeof set, &set);
        if (error == 0)
            error = pthread_create(handle, &attributes, body, argument);
        pthread_attr_destroy(&attributes);
    }
    return error == 0 ? 0 : pthread_create(handle, NULL, body, argument);
}

vd_code vd_thread_start(vd_thread *thread, const char *name, int cpu, void *(*body)(void *), void *argument,
                        vd_error *err) {
    sigset_t all, before;
    sigfillset(&all);
    int error = pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits the mask */
    if (error == 0) {
        error = create_pinned(&thread->handle, cpu, body, argument);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    thread->running = error == 0;
    if (error != 0)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "cannot start thread '%s': %s", name, strerrordesc_np(error));
    char cut[16];
    snprintf(cut, sizeof cut, "%s", name);
    pthread_setname_np(thread->handle, cut); /* for debuggers only: a refusal does no harm */
    return VD_OK;
}

void vd_thread_join(vd_thread *thread) {
    if (!thread->running)
        return;
    pthread_join(thread->handle, NULL);
    thread->running = 0;
}

void vd_park(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns) {
    struct timespec limit = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? NULL : &limit, NULL, 0);
}

void vd_wake_all(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

double vd_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void append(int cpu, int *cpus, int cap, int *count) {
    if (*count < cap)
        cpus[*count] = cpu;
    ++*count;
}

/* Loads cores and hardware threads only; NULL when hwloc cannot. */
static hwloc_topology_t load_topology(void) {
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0)
        return NULL;
    /* The kernel's own tables say enough; asking every CPU with cpuid takes milliseconds. */
    hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
    if (hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE) == 0 &&
        hwloc_topology_set_type_filter(topology, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL) == 0 &&
        hwloc_topology_load(topology) == 0)
        return topology;
    hwloc_topology_destroy(topology);
    return NULL;
}

/* The `nth` CPU of `core` that is in `allowed`, or -1. */
static int nth_allowed(hwloc_obj_t core, const cpu_set_t *allowed, int nth) {
    unsigned cpu;
    hwloc_bitmap_foreach_begin(cpu, core->cpuset) if (cpu < CPU_SETSIZE && CPU_ISSET(cpu, allowed) &&
                                                      nth-- == 0) return (int)cpu;
    hwloc_bitmap_foreach_end();
    return -1;
}

/* One thread of every core, then the second of every core, and so on. */
static int list_by_core(const cpu_set_t *allowed, int *cpus, int cap) {
    hwloc_topology_t topology = load_topology();
    if (!topology)
        return 0;
    int count = 0, cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    for (int nth = 0, before = -1; count > before; nth++) {
        before = count;
        for (int i = 0; i < cores; i++) {
            int cpu = nth_allowed(hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, (unsigned)i), allowed, nth);
            if (cpu >= 0)
                append(cpu, cpus, cap, &count);
        }
    }
    hwloc_topology_destroy(topology);
    return count;
}

static cpu_set_t allowed_cpus(void) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        CPU_ZERO(&allowed);
        CPU_SET(0, &allowed);
    }
    return allowed;
}

int vd_cpu_count(void) {
    cpu_set_t allowed = allowed_cpus();
    return CPU_COUNT(&allowed);
}

void vd_thread_stay_near(int node) {
    char path[64];
    cpu_set_t allowed = allowed_cpus(), near;
    hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
    unsigned cpu;
    CPU_ZERO(&near);
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpumap", node);
    if (node >= 0 && cpus && hwloc_linux_read_path_as_cpumask(path, cpus) == 0) {
        hwloc_bitmap_foreach_begin(cpu, cpus) if (cpu < CPU_SETSIZE && CPU_ISSET(cpu, &allowed))
            CPU_SET(cpu, &near);
        hwloc_bitmap_foreach_end();
    }
    if (CPU_COUNT(&near) > 0)
        sched_setaffinity(0, sizeof near, &near); /* a refusal costs speed, nothing else */
    hwloc_bitmap_free(cpus);
}

int vd_usable_cpus(int *cpus, int cap) {
    cpu_set_t allowed = allowed_cpus();
    if (list_by_core(&allowed, cpus, cap) == CPU_COUNT(&allowed))
        return CPU_COUNT(&allowed);
    int count = 0; /* a machine that shows no cores */
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed))
            append(cpu, cpus, cap, &count);
    return count;
}
