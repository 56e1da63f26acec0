/* CartPole-v1 as a vectorised C loop: how fast the arithmetic itself can go on one core.
 *
 * Same rules as Gymnasium's CartPole-v1 (Euler integration, 500-step limit, uniform resets in
 * [-0.05, 0.05]), struct of arrays, float32. At every step every environment gets a fresh random
 * action, its episode statistics are kept, a finished one starts over in the same step, and
 * observation, reward, terminated and truncated are written to the batch.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    int count;
    uint32_t *seed;
    float *x, *x_dot, *theta, *theta_dot; /* state, and the observation of the batch */
    float *reward, *episode_return;
    int32_t *length;
    uint8_t *terminated, *truncated;
} Batch;

typedef struct {
    Batch *batch;
    int steps;
    uint32_t clock;
    double checksum;
} Job;

/* Two-multiply xorshift mixer (C. Wellons, hash-prospector). */
static inline uint32_t mix(uint32_t word) {
    word = (word ^ (word >> 16)) * 0x21f0aaadu;
    word = (word ^ (word >> 15)) * 0x735a2d97u;
    return word ^ (word >> 15);
}

static inline float start(uint32_t word) {
    return ((float)(int32_t)(word >> 8) * (1.0f / 16777216.0f) - 0.5f) * 0.1f;
}

static void *alloc(int count, size_t size) {
    size_t bytes = ((size_t)count * size + 63) / 64 * 64;
    char *memory = aligned_alloc(64, bytes);
    for (size_t i = 0; i < bytes; i++) memory[i] = 0;
    return memory;
}

Batch *batch_new(int count, uint32_t seed) {
    Batch *b = malloc(sizeof *b);
    b->count = count;
    b->seed = alloc(count, 4);
    b->x = alloc(count, 4);
    b->x_dot = alloc(count, 4);
    b->theta = alloc(count, 4);
    b->theta_dot = alloc(count, 4);
    b->reward = alloc(count, 4);
    b->episode_return = alloc(count, 4);
    b->length = alloc(count, 4);
    b->terminated = alloc(count, 1);
    b->truncated = alloc(count, 1);
    for (int i = 0; i < count; i++) {
        b->seed[i] = mix(seed * 0x9e3779b9u + (uint32_t)i);
        b->x[i] = start(mix(b->seed[i] + 1));
        b->x_dot[i] = start(mix(b->seed[i] + 2));
        b->theta[i] = start(mix(b->seed[i] + 3));
        b->theta_dot[i] = start(mix(b->seed[i] + 4));
    }
    return b;
}

static void step_all(Batch *b, uint32_t clock) {
    int count = b->count;
    uint32_t *restrict seed = b->seed;
    float *restrict x = b->x, *restrict x_dot = b->x_dot;
    float *restrict theta = b->theta, *restrict theta_dot = b->theta_dot;
    float *restrict reward = b->reward, *restrict episode_return = b->episode_return;
    int32_t *restrict length = b->length;
    uint8_t *restrict terminated = b->terminated, *restrict truncated = b->truncated;
#pragma GCC ivdep
    for (int i = 0; i < count; i++) {
        uint32_t key = seed[i] ^ (clock * 0x9e3779b9u);
        float force = (mix(key) >> 31) ? 10.0f : -10.0f;
        float angle = theta[i], square = angle * angle;
        /* Taylor polynomials: exact to float32 for the angles an episode can reach. */
        float sine =
            angle * (1.0f + square * (-1.0f / 6 + square * (1.0f / 120 + square * (-1.0f / 5040))));
        float cosine = 1.0f + square * (-0.5f + square * (1.0f / 24 + square *
                                                          (-1.0f / 720 + square / 40320)));
        float speed = theta_dot[i];
        float pull = (force + 0.05f * speed * speed * sine) / 1.1f;
        float theta_acc =
            (9.8f * sine - cosine * pull) / (0.5f * (4.0f / 3 - 0.1f * cosine * cosine / 1.1f));
        float x_acc = pull - 0.05f * theta_acc * cosine / 1.1f;
        float next_x = x[i] + 0.02f * x_dot[i];
        float next_x_dot = x_dot[i] + 0.02f * x_acc;
        float next_theta = angle + 0.02f * speed;
        float next_theta_dot = speed + 0.02f * theta_acc;
        int ended = (next_x < -2.4f) | (next_x > 2.4f) | (next_theta < -0.20943951f) |
                    (next_theta > 0.20943951f);
        int cut = length[i] + 1 >= 500;
        int done = ended | cut;
        x[i] = done ? start(mix(key + 1)) : next_x;
        x_dot[i] = done ? start(mix(key + 2)) : next_x_dot;
        theta[i] = done ? start(mix(key + 3)) : next_theta;
        theta_dot[i] = done ? start(mix(key + 4)) : next_theta_dot;
        reward[i] = 1.0f;
        episode_return[i] = done ? 0.0f : episode_return[i] + 1.0f;
        length[i] = done ? 0 : length[i] + 1;
        terminated[i] = (uint8_t)ended;
        truncated[i] = (uint8_t)cut;
    }
}

static void *run_job(void *argument) {
    Job *job = argument;
    for (int t = 0; t < job->steps; t++) step_all(job->batch, job->clock + (uint32_t)t);
    for (int i = 0; i < job->batch->count; i++) job->checksum += job->batch->x[i];
    return NULL;
}

/* Advances each batch by `steps` in a thread of its own; returns a checksum. */
double run(Batch **batches, int threads, int steps, uint32_t clock) {
    pthread_t ids[64];
    Job jobs[64];
    double checksum = 0.0;
    for (int i = 0; i < threads; i++) jobs[i] = (Job){batches[i], steps, clock, 0.0};
    for (int i = 1; i < threads; i++) pthread_create(&ids[i], NULL, run_job, &jobs[i]);
    run_job(&jobs[0]);
    for (int i = 1; i < threads; i++) pthread_join(ids[i], NULL);
    for (int i = 0; i < threads; i++) checksum += jobs[i].checksum;
    return checksum;
}

/* Mean length of the running episodes, to check the rules: about 22 steps on average per episode. */
double mean_length(Batch *b) {
    double sum = 0.0;
    for (int i = 0; i < b->count; i++) sum += b->length[i];
    return sum / b->count;
}
