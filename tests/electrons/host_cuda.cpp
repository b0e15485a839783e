// CUDA's threads on a CPU: every thread is a fiber, and a barrier hands over to the next one.
#include <cstring>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __align__(bytes)
#define __launch_bounds__(threads)

struct Index {
    int x;
};
static Index threadIdx, blockIdx, gridDim;
alignas(16) char memory[232448];

static const size_t STACK = 1 << 17;
static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<char> stacks;
static char slots[1024][16];

static void __syncthreads() { swapcontext(&fibers[threadIdx.x], &scheduler); }

template <typename T>
static T __shfl_xor_sync(unsigned, T value, int distance) {
    std::memcpy(slots[threadIdx.x], &value, sizeof value);
    __syncthreads();
    std::memcpy(&value, slots[threadIdx.x ^ distance], sizeof value);
    __syncthreads();
    return value;
}

#include KERNEL

static const cplx *blocks, *energies, *source;
static const long long *owners;
static const int *groups;
static const double *weights;
static int count, columns, batch, *singular;
static cplx *work;
static double *response, *spectral;
static std::vector<char> done;

static void fiber() {
    sweep(blocks, energies, owners, source, groups, weights, count, columns, batch, work, response, spectral, singular);
    done[threadIdx.x] = 1;
    swapcontext(&fibers[threadIdx.x], &scheduler);
}

// Returns 1 if some threads ended while others waited at a barrier, 2 for a wrong number of threads.
extern "C" int launch(int grid, int threads, const void *blocks_, const void *energies_, const long long *owners_,
                      const void *source_, const int *groups_, const double *weights_, int count_, int columns_,
                      int batch_, void *work_, double *response_, double *spectral_, int *singular_) {
    blocks = (const cplx *)blocks_, energies = (const cplx *)energies_, owners = owners_;
    source = (const cplx *)source_, groups = groups_, weights = weights_, count = count_, columns = columns_;
    batch = batch_, work = (cplx *)work_, response = response_, spectral = spectral_, singular = singular_;
    if (threads != THREADS) return 2;
    gridDim.x = grid;
    for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++) {
        std::memset(memory, 0xff, sizeof memory);  // not a number: what is read must have been written
        fibers.assign(THREADS, ucontext_t());
        stacks.resize(THREADS * STACK);
        done.assign(THREADS, 0);
        for (int t = 0; t < THREADS; t++) {
            getcontext(&fibers[t]);
            fibers[t].uc_stack.ss_sp = &stacks[t * STACK];
            fibers[t].uc_stack.ss_size = STACK;
            makecontext(&fibers[t], fiber, 0);
        }
        for (size_t ended = 0; ended < THREADS;) {
            for (threadIdx.x = 0; threadIdx.x < THREADS; threadIdx.x++) swapcontext(&scheduler, &fibers[threadIdx.x]);
            ended = 0;
            for (char one : done) ended += one;
            if (ended && ended < THREADS) return 1;
        }
    }
    return 0;
}
