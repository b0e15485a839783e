// The kernels of kpm_stencil.cu on a CPU: nothing passes between their threads, so that they run one after the other.
#define __device__
#define __global__

struct Index {
    int x;
};
static Index threadIdx, blockIdx, blockDim;

#include KERNEL

template <typename Kernel, typename... Arguments>
static void launch(Kernel kernel, int blocks, int threads, Arguments... arguments) {
    blockDim.x = threads;
    // From the last to the first: no thread may need what another one has written.
    for (blockIdx.x = blocks - 1; blockIdx.x >= 0; blockIdx.x--)
        for (threadIdx.x = threads - 1; threadIdx.x >= 0; threadIdx.x--) kernel(arguments...);
}

extern "C" void launch_advance(int blocks, int threads, const long long *targets, const cplx *hopping,
                               const cplx *on_site, long long sites, double scale, const cplx *near, cplx *far) {
    launch(advance, blocks, threads, targets, hopping, on_site, sites, scale, near, far);
}

extern "C" void launch_reverse(int blocks, int threads, const long long *targets, const cplx *hopping,
                               const cplx *on_site, long long sites, double even, double odd, double odd_before,
                               const cplx *near, cplx *far, const cplx *later, cplx *latest, double *sums) {
    launch(reverse, blocks, threads, targets, hopping, on_site, sites, even, odd, odd_before, near, far, later, latest,
           sums);
}
