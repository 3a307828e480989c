#include "device/cuda.h"

#include <stddef.h>

/* Errors after which no call on the process's contexts works any more, as the header of the runtime describes
 * them. */
static const cudaError_t poisons[] = {
    cudaErrorECCUncorrectable,    cudaErrorNvlinkUncorrectable,
    cudaErrorContained,           cudaErrorTensorMemoryLeak,
    cudaErrorIllegalAddress,      cudaErrorLaunchTimeout,
    cudaErrorLaunchFailure,       cudaErrorAssert,
    cudaErrorHardwareStackError,  cudaErrorIllegalInstruction,
    cudaErrorMisalignedAddress,   cudaErrorInvalidAddressSpace,
    cudaErrorInvalidPc,           cudaErrorContextIsDestroyed,
    cudaErrorDevicesUnavailable,  cudaErrorDeviceUninitialized,
    cudaErrorMpsConnectionFailed, cudaErrorMpsRpcFailure,
    cudaErrorMpsServerNotReady,   cudaErrorMpsClientTerminated,
    cudaErrorCudartUnloading,     cudaErrorUnknown,
};

bool vd_cuda_poisons(cudaError_t result) {
    for (size_t i = 0; i < sizeof poisons / sizeof *poisons; i++)
        if (poisons[i] == result)
            return true;
    return false;
}

vd_code vd_cuda_check(cudaError_t result, const char *device, const char *what, vd_error *err) {
    if (result == cudaSuccess)
        return VD_OK;
    (void)cudaGetLastError(); /* else the next kernel's launch would report this error once more */
    const char *name = cudaGetErrorName(result), *text = cudaGetErrorString(result);
    if (vd_cuda_poisons(result))
        return vd_fail(err, VD_ERR_TRY_AGAIN, "device %s was lost: %s: %s (%s)", device, what, text, name);
    if (result == cudaErrorMemoryAllocation)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "device %s: out of memory: %s", device, what);
    return vd_fail(err, VD_ERR_INTERNAL, "device %s: %s: %s (%s)", device, what, text, name);
}
