/* Stands in for libcuda.so.1 in the test of plans, so that cuDNN's engines that compile their kernels at run
 * time can be asked for plans on a machine without a driver: a kernel counts as loaded, and everything that
 * would need a device fails. On the library path of that test only; never installed. Without cuda.h, which
 * gives several of these names another version's. */
#define DRIVER(name, ...)                                                                                    \
    __attribute__((visibility("default"))) int name(__VA_ARGS__);                                            \
    int name(__VA_ARGS__)

enum { SUCCESS = 0, STUB_LIBRARY = 34, VERSION = 13000 };

/* Any address will do: nobody looks behind a handle. */
static char handle;

DRIVER(cuInit, unsigned flags) {
    (void)flags;
    return SUCCESS;
}

DRIVER(cuDriverGetVersion, int *version) {
    *version = VERSION;
    return SUCCESS;
}

DRIVER(cuLibraryLoadData, void **library) {
    *library = &handle;
    return SUCCESS;
}

DRIVER(cuLibraryUnload, void *library) {
    (void)library;
    return SUCCESS;
}

DRIVER(cuLibraryGetKernel, void **kernel, void *library, const char *name) {
    (void)library, (void)name;
    *kernel = &handle;
    return SUCCESS;
}

DRIVER(cuKernelSetAttribute, int attribute, int value, void *kernel, int device) {
    (void)attribute, (void)value, (void)kernel, (void)device;
    return SUCCESS;
}

DRIVER(cuKernelGetAttribute, int *value, int attribute, void *kernel, int device) {
    (void)attribute, (void)kernel, (void)device;
    *value = 0;
    return SUCCESS;
}

#define NEEDS_A_DEVICE(name)                                                                                 \
    DRIVER(name, void) {                                                                                     \
        return STUB_LIBRARY;                                                                                 \
    }

NEEDS_A_DEVICE(cuCtxGetCurrent)
NEEDS_A_DEVICE(cuCtxGetLimit)
NEEDS_A_DEVICE(cuCtxPopCurrent)
NEEDS_A_DEVICE(cuCtxPushCurrent)
NEEDS_A_DEVICE(cuDeviceGet)
NEEDS_A_DEVICE(cuDeviceGetCount)
NEEDS_A_DEVICE(cuGetErrorName)
NEEDS_A_DEVICE(cuGetErrorString)
NEEDS_A_DEVICE(cuGetExportTable)
NEEDS_A_DEVICE(cuLaunchCooperativeKernel)
NEEDS_A_DEVICE(cuLaunchKernel)
NEEDS_A_DEVICE(cuLaunchKernelEx)
NEEDS_A_DEVICE(cuLibraryLoadFromFile)
NEEDS_A_DEVICE(cuLinkAddData)
NEEDS_A_DEVICE(cuLinkComplete)
NEEDS_A_DEVICE(cuLinkCreate)
NEEDS_A_DEVICE(cuLinkDestroy)
NEEDS_A_DEVICE(cuOccupancyMaxPotentialClusterSize)
NEEDS_A_DEVICE(cuStreamGetCtx)
