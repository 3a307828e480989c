/* Inside of the CPU backend: what all virtual devices of a process share, and opening one. */
#ifndef VD_DEVICE_CPU_BACKEND_H
#define VD_DEVICE_CPU_BACKEND_H

#include "device/backend.h"
#include "device/cpu.h"

#include <pthread.h>

typedef struct vd_cpu_backend {
    vd_backend base;
    vd_cpu_library *library;
    pthread_mutex_t lock; /* guards `programs` and the users of its members */
    vd_compiled *programs;
} vd_cpu_backend;

/* `cpu`: logical CPU for its compute stream, VD_ANY_CPU for none. */
vd_code vd_cpu_device_open(vd_cpu_backend *b, int index, int cpu, vd_device **out, vd_error *err);

#endif
