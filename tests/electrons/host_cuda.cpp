// CUDA's threads on a CPU: every thread is a fiber. Warps take turns in random order, each until it waits; the threads
// of a warp wait for each other at a shuffle or reduction, those of the block at a barrier.
#include <algorithm>
#include <cstring>
#include <random>
#include <setjmp.h>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __align__(bytes)
#define __launch_bounds__(...)

struct Index {
    int x;
};
static Index threadIdx, blockIdx, gridDim;
alignas(16) char memory[232448];

static const int WARP = 32;
static const size_t STACK = 1 << 16;
enum State { READY, AT_REDUCTION, AT_BARRIER, ENDED };
struct Fiber {
    ucontext_t start;
    jmp_buf here;
    bool started;
    char stack[STACK];
};
static jmp_buf scheduler;
static std::vector<Fiber> fibers;
static std::vector<State> states;
static std::vector<int> turns;  // reductions that each thread has met: neighbours are never more than one apart
static char slots[2][1024][16];
static int skipped_line;

static void wait(State state) {
    states[threadIdx.x] = state;
    if (!_setjmp(fibers[threadIdx.x].here)) _longjmp(scheduler, 1);
}

// Run a thread until it waits. Jumps cost no system call, which switching contexts does.
static __attribute__((noinline)) void run_thread(int thread) {
    threadIdx.x = thread;
    Fiber &fiber = fibers[thread];
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.here, 1);
    fiber.started = true;
    setcontext(&fiber.start);
}

static void barrier(int line) {
    if (line != skipped_line) wait(AT_BARRIER);
}
#define __syncthreads() barrier(__LINE__)

// What the threads of my warp hand over, once all have.
template <typename T>
static char (*exchange(T value))[16] {
    char (*mine)[16] = slots[turns[threadIdx.x]++ % 2];
    std::memcpy(mine[threadIdx.x], &value, sizeof value);
    wait(AT_REDUCTION);
    return mine;
}

template <typename T>
static T __shfl_xor_sync(unsigned, T value, int distance) {
    std::memcpy(&value, exchange(value)[threadIdx.x ^ distance], sizeof value);
    return value;
}

static unsigned __reduce_max_sync(unsigned, unsigned value) {
    char (*all)[16] = exchange(value);
    for (int lane = 0; lane < WARP; lane++) {
        unsigned other;
        std::memcpy(&other, all[threadIdx.x / WARP * WARP + lane], sizeof other);
        value = std::max(value, other);
    }
    return value;
}

static unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

#include KERNEL

static const cplx *blocks, *energies, *source;
static const long long *owners;
static const int *groups;
static const double *weights;
static int count, columns, batch;
static cplx *work;
static double *response, *spectral;

static void fiber() {
    sweep(blocks, energies, owners, source, groups, weights, count, columns, batch, work, response, spectral);
    wait(ENDED);
}

// Whether the threads from first on, count of them, are all in one state.
static bool all(int first, int count, State state) {
    return std::all_of(&states[first], &states[first] + count, [=](State one) { return one == state; });
}

static void release(int first, int count) { std::fill_n(&states[first], count, READY); }

// Returns 1 if threads waited for others for ever, 2 for a wrong number of threads.
static int run_block(std::mt19937 &random) {
    std::memset(memory, 0xff, sizeof memory);  // not a number: what is read must have been written
    fibers.resize(THREADS);
    states.assign(THREADS, READY);
    turns.assign(THREADS, 0);
    for (int t = 0; t < THREADS; t++) {
        fibers[t].started = false;
        getcontext(&fibers[t].start);
        fibers[t].start.uc_stack.ss_sp = fibers[t].stack;
        fibers[t].start.uc_stack.ss_size = STACK;
        makecontext(&fibers[t].start, fiber, 0);
    }
    while (!all(0, THREADS, ENDED)) {
        if (all(0, THREADS, AT_BARRIER)) release(0, THREADS);
        std::vector<int> ready;
        for (int first = 0; first < THREADS; first += WARP) {
            if (all(first, WARP, AT_REDUCTION)) release(first, WARP);
            if (std::count(&states[first], &states[first] + WARP, READY)) ready.push_back(first);
        }
        if (ready.empty()) return 1;
        const int first = ready[random() % ready.size()];
        std::vector<int> lanes;
        for (int lane = 0; lane < WARP; lane++)
            if (states[first + lane] == READY) lanes.push_back(first + lane);
        std::shuffle(lanes.begin(), lanes.end(), random);
        for (int lane : lanes) run_thread(lane);
    }
    return 0;
}

// Leave out the barrier on this line of the source; 0 keeps them all.
extern "C" void skip(int line) { skipped_line = line; }

extern "C" int launch(int seed, int grid, int threads, const void *blocks_, const void *energies_,
                      const long long *owners_, const void *source_, const int *groups_, const double *weights_,
                      int count_, int columns_, int batch_, void *work_, double *response_, double *spectral_) {
    blocks = (const cplx *)blocks_, energies = (const cplx *)energies_, owners = owners_;
    source = (const cplx *)source_, groups = groups_, weights = weights_, count = count_, columns = columns_;
    batch = batch_, work = (cplx *)work_, response = response_, spectral = spectral_;
    if (threads != THREADS) return 2;
    gridDim.x = grid;
    std::mt19937 random(seed);
    for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++)
        if (int failure = run_block(random)) return failure;
    return 0;
}
