/* Holds a hundred values in sixty-four registers. */
constexpr int values = 100, threads = 1024;

__global__ void __launch_bounds__(threads) spills(float *x) {
    float a[values];
    for (int i = 0; i < values; i++)
        a[i] = x[i * threads + threadIdx.x];
    __syncthreads();
    for (int round = 0; round < 10; round++)
        for (int i = 0; i + 1 < values; i++)
            a[i] = a[i] * a[i + 1] + (float)round;
    for (int i = 0; i < values; i++)
        x[i * threads + threadIdx.x] = a[i];
}
