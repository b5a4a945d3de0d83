/* CRC-32 as zlib's: IEEE 802.3, reflected. zlib's own tables take 8 KiB of cache, which training needs for its data. */
#include "core.h"

/* The remainders of four bits: one line of cache. */
static const uint32_t REMAINDERS[16] = {
    0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
    0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
};

static uint32_t extend_by_bytes(uint32_t state, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        state ^= bytes[i];
        state = (state >> 4) ^ REMAINDERS[state & 15];
        state = (state >> 4) ^ REMAINDERS[state & 15];
    }
    return state;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define WITH_CARRYLESS __attribute__((target("pclmul,sse4.1")))

/* Fold 128 bits into the next ones: powers of x modulo the polynomial carry them over the distance. */
WITH_CARRYLESS static inline __m128i fold(__m128i folded, __m128i powers, __m128i next)
{
    __m128i low = _mm_clmulepi64_si128(folded, powers, 0x00), high = _mm_clmulepi64_si128(folded, powers, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/* Gopal et al. 2009, "Fast CRC computation for generic polynomials using PCLMULQDQ". At least 64 bytes, in 16s. */
WITH_CARRYLESS static uint32_t extend_by_blocks(uint32_t state, const uint8_t *bytes, size_t count)
{
    const __m128i by_64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by_16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    const __m128i by_8 = _mm_set_epi64x(0, 0x0163cd6124), barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    const __m128i low_words = _mm_setr_epi32(~0, 0, ~0, 0);
    const __m128i *blocks = (const __m128i *)bytes;
    __m128i lanes[4];
    for (int i = 0; i < 4; i++)
        lanes[i] = _mm_loadu_si128(blocks + i);
    lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128((int)state));
    for (blocks += 4, count -= 64; count >= 64; blocks += 4, count -= 64)
        for (int i = 0; i < 4; i++)
            lanes[i] = fold(lanes[i], by_64, _mm_loadu_si128(blocks + i));
    __m128i folded = lanes[0];
    for (int i = 1; i < 4; i++)
        folded = fold(folded, by_16, lanes[i]);
    for (; count >= 16; blocks++, count -= 16)
        folded = fold(folded, by_16, _mm_loadu_si128(blocks));
    /* 128 bits to 64, to 32, and the remainder by Barrett's reduction. */
    __m128i carried = _mm_clmulepi64_si128(folded, by_16, 0x10);
    folded = _mm_xor_si128(_mm_srli_si128(folded, 8), carried);
    carried = _mm_clmulepi64_si128(_mm_and_si128(folded, low_words), by_8, 0x00);
    folded = _mm_xor_si128(_mm_srli_si128(folded, 4), carried);
    carried = _mm_clmulepi64_si128(_mm_and_si128(folded, low_words), barrett, 0x10);
    carried = _mm_clmulepi64_si128(_mm_and_si128(carried, low_words), barrett, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(folded, carried), 1);
}

static bool has_carryless(void)
{
    return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}
#else
static uint32_t extend_by_blocks(uint32_t state, const uint8_t *bytes, size_t count)
{
    return extend_by_bytes(state, bytes, count);
}

static bool has_carryless(void)
{
    return false;
}
#endif

uint32_t check_value(const void *begin, size_t count)
{
    const uint8_t *bytes = begin;
    uint32_t state = ~0u;
    if (count >= 64 && has_carryless()) {
        size_t whole = count & ~(size_t)15;
        state = extend_by_blocks(state, bytes, whole);
        bytes += whole;
        count -= whole;
    }
    return ~extend_by_bytes(state, bytes, count);
}
