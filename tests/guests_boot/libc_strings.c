/* The string functions of the C library, over many lengths, alignments and ends of pages: a digest of what each returned
 * and left in memory. As process 1 it powers the machine off afterwards. Compiled without built-in functions, so that
 * the library's are called: it chooses them by CPUID. */

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <unistd.h>
#include <wchar.h>

enum { AREA = 4096, LONGEST = 300 };

static char *first, *second; /* each ends at a page that isn't there */
static uint64_t digest, seed = 1;

static uint32_t next_random(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return seed >> 33;
}

static void note(uint64_t value)
{
    digest = (digest ^ value) * 0x100000001b3u;
}

static void note_pointer(const void *at, const void *base)
{
    note(at ? (uint64_t)((const char *)at - (const char *)base) : ~0ull);
}

static void note_area(const char *area)
{
    for (int n = 0; n < AREA; n += 8) {
        uint64_t word;
        __builtin_memcpy(&word, area + n, 8);
        note(word);
    }
}

static char *area(void)
{
    char *at = mmap(0, 2 * AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(at + AREA, AREA, PROT_NONE);
    return at;
}

/* Few different characters, so that comparisons go on for a while. */
static void fill(char *at, int length)
{
    for (int n = 0; n < length; n++)
        at[n] = "aabA\xe1"[next_random() % 5];
}

static int sign(int value)
{
    return (value > 0) - (value < 0);
}

static void lengths(const char *name, void (*function)(char *, char *, int))
{
    digest = 0xcbf29ce484222325u;
    for (int length = 0; length < LONGEST; length += length < 140 ? 1 : 13)
        for (int round = 0; round < 4; round++) {
            fill(first, AREA);
            fill(second, AREA);
            int room = AREA - length - 1;
            int one = round ? next_random() % 64 : room, two = round == 1 ? room : (int)(next_random() % 64);
            first[one + length] = 0;
            function(first + one, second + two, length);
            note_area(first);
            note_area(second);
        }
    printf("%s %016llx\n", name, (unsigned long long)digest);
}

static void copies(char *a, char *b, int n)
{
    note_pointer(memcpy(b, a, n), b);
    note_pointer(mempcpy(b, a, n), b);
    note_pointer(memmove(a + (n ? 1 : 0), a, n), a);
    note_pointer(memmove(b, b + n / 3, n - n / 3), b);
}

static void sets(char *a, char *b, int n)
{
    note_pointer(memset(b, n, n), b);
    explicit_bzero(a, n / 2);
}

static void searches(char *a, char *b, int n)
{
    char wanted = "abAz"[next_random() % 4], needle[] = {'a', wanted, 0};
    (void)b;
    note(strlen(a));
    note(strnlen(a, n / 2 + 1));
    note_pointer(strchr(a, wanted), a);
    note_pointer(strchrnul(a, wanted), a);
    note_pointer(strrchr(a, wanted), a);
    note_pointer(memchr(a, wanted, n), a);
    note_pointer(memrchr(a, wanted, n), a);
    note_pointer(rawmemchr(a, 0), a);
    note(strspn(a, "ab"));
    note(strcspn(a, "z\xe1"));
    note_pointer(strstr(a, needle), a);
}

static void comparisons(char *a, char *b, int n)
{
    memmove(b, a, n + 1);
    note(sign(strcmp(a, b)));
    if (n)
        b[next_random() % n] ^= 0x20;
    note(sign(memcmp(a, b, n)));
    note(sign(strcmp(a, b)));
    note(sign(strncmp(a, b, n / 2)));
    note(sign(strcasecmp(a, b)));
    note(sign(strncasecmp(a, b, n / 2)));
}

static void strings(char *a, char *b, int n)
{
    note_pointer(strcpy(b, a), b);
    note_pointer(stpcpy(b, a), b);
    note_pointer(strncpy(b, a, n / 2 + 1), b);
    note_pointer(stpncpy(b, a, n + 1), b);
    b[n / 2] = 0;
    if (n < AREA / 4 && b < second + 64)
        note_pointer(strcat(b, a), b), note_pointer(strncat(b, a, n / 2), b);
}

static void wide(char *a, char *b, int n)
{
    wchar_t *x = (wchar_t *)(first + 4 * (next_random() % 16)), *y = (wchar_t *)(second + 4 * (next_random() % 16));
    (void)a, (void)b;
    for (int k = 0; k < n; k++)
        x[k] = y[k] = L"abcdef"[next_random() % 6];
    x[n] = y[n] = 0;
    note(wcslen(x));
    note(wcsnlen(x, n / 2 + 1));
    note_pointer(wcschr(x, L'c'), x);
    note_pointer(wcsrchr(x, L'd'), x);
    note_pointer(wmemchr(x, L'z', n), x);
    note(sign(wcscmp(x, y)));
    if (n)
        y[next_random() % n] = L'z';
    note(sign(wcscmp(x, y)));
    note(sign(wmemcmp(x, y, n)));
    wmemset(y, n, n);
}

int main(void)
{
    first = area(), second = area();
    printf("avx2 %d avx512bw %d avx512vl %d\n", !!__builtin_cpu_supports("avx2"), !!__builtin_cpu_supports("avx512bw"),
           !!__builtin_cpu_supports("avx512vl"));
    lengths("copies", copies);
    lengths("sets", sets);
    lengths("searches", searches);
    lengths("comparisons", comparisons);
    lengths("strings", strings);
    lengths("wide", wide);
    puts("strings-done");
    fflush(stdout);
    if (getpid() == 1)
        reboot(RB_POWER_OFF);
    return 0;
}
