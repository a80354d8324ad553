/* A module with one token that can do next to nothing, and a flaw that the compiler's -D names. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long RV;
#define SLOT 7UL
#define NOT_SUPPORTED 0x54UL

/* What outlives the process: a file beside the PIN. */
__attribute__((unused)) static int was_noted(const char *what) {
    char name[4096];
    FILE *file;
    snprintf(name, sizeof name, "%s/%s", getenv("TMPDIR"), what);
    file = fopen(name, "r");
    if (file) fclose(file);
    return file != NULL;
}

__attribute__((unused)) static void note(const char *what) {
    char name[4096];
    FILE *file;
    snprintf(name, sizeof name, "%s/%s", getenv("TMPDIR"), what);
    file = fopen(name, "w");
    if (file) fclose(file);
}

/* Whether this process is the one that clears the token behind all checks. */
__attribute__((unused)) static int is_clearing(void) {
    char words[8192];
    FILE *file = fopen("/proc/self/cmdline", "r");
    size_t length = file ? fread(words, 1, sizeof words, file) : 0;
    if (file) fclose(file);
    return memmem(words, length, "--sweep", 8) != NULL;
}

static RV refuse(void) { return NOT_SUPPORTED; }
static RV fine(void) { return 0; }

static RV initialize(void *arguments) {
    (void)arguments;
#ifdef CRASH
    fprintf(stderr, "no configuration\n");
    abort();
#endif
#ifdef HANGS
    while (was_noted("gone")) sleep(1);
#endif
#ifdef DIES_CLEARING
    if (is_clearing()) abort();
#endif
#ifdef HANGS_CLEARING
    while (is_clearing()) pause();
#endif
#ifdef LEAVES
    if (was_noted("looked")) _exit(2);
    note("looked"); /* the suite looks once before the checks */
#endif
#ifdef TALKS
    {
        int line;
        for (line = 0; line < 40000; line++) {
            fprintf(stderr, "%0100d\n", line);
            printf("%0100d", line); /* one line without an end */
        }
        fprintf(stderr, "and the PIN is 313233342D75736572\n");
        fflush(stdout);
    }
    if (was_noted("looked")) abort();
    note("looked");
#endif
#ifdef FORKS
    {
        char name[4096];
        FILE *file;
        int written[2];
        if (pipe(written) != 0) return 5;
        snprintf(name, sizeof name, "%s/pids", getenv("TMPDIR"));
        file = fopen(name, "a");
        if (fork() == 0) { /* one in the group of the process */
            fprintf(file, "%d\n", (int)getpid());
            fclose(file);
            close(written[1]);
            for (;;) sleep(1);
        }
        if (fork() == 0) { /* and one that leaves it, and its parent */
            if (fork() != 0) _exit(0);
            setsid();
            signal(SIGHUP, SIG_IGN);
            fprintf(file, "%d\n", (int)getpid());
            fclose(file);
            close(written[1]);
            for (;;) sleep(1);
        }
        fclose(file);
        close(written[1]);
        while (read(written[0], name, 1) > 0) { } /* until both have written who they are */
        close(written[0]);
    }
#endif
    return 0;
}

__attribute__((unused)) static RV die_at_once(void) { abort(); }

#ifdef NEVER_FINALIZED
static RV finalize(void) {
    signal(SIGTERM, SIG_IGN);
    while (pause()) {
    }
    return 0;
}
#elif defined LEAVES_LAST
static RV finalize(void) { _exit(0); }
#else
#define finalize fine
#endif

static RV get_info(unsigned char *info) {
    memset(info, 0, 88);
    memset(info + 2, ' ', 32);
    memset(info + 48, ' ', 32);
    info[0] = 2;
    info[1] = 40;
#ifdef TELLS_PIN
    memcpy(info + 2, "%31%32%33%34%2D%75%73%65%72", 27);
    memcpy(info + 48, "1\0002\0003\0004\000-\000u\000s\000e\000r", 18);
#endif
#if defined VANISHES || defined HANGS
    note(was_noted("seen") ? "gone" : "seen"); /* the suite asks once before the checks */
#endif
#ifdef HANGS
    while (was_noted("gone")) sleep(1);
#endif
#ifdef HOG
    {
        volatile char *memory = malloc(700UL << 20);
        unsigned long i;
        for (i = 0; memory && i < 700UL << 20; i += 4096) memory[i] = 1;
    }
#endif
    return 0;
}

static RV slots(unsigned char present, unsigned long *list, unsigned long *count) {
    (void)present;
#ifdef VANISHES
    *count = 0;
    if (was_noted("gone")) return 0;
#endif
    if (list) list[0] = SLOT;
    *count = 1;
#ifdef COUNTS
    *count = 1UL << 40;
#endif
    return 0;
}

static RV token(unsigned long slot, unsigned char *info) {
    unsigned long flags = 0x40DUL; /* RNG, login required, user PIN set, initialised */
    (void)slot;
#ifdef LOCKED
    flags |= 0x40000UL;
#endif
#ifdef FINAL
    flags |= 0x20000UL;
#endif
#ifdef PROTECTED
    flags = 0x402UL; /* nobody writes, and nobody needs to log in */
#endif
    memset(info, 0, 208);
    memset(info, ' ', 96);
#ifdef TELLS_PIN
    memcpy(info, "is 1234-user", 12);
    memcpy(info + 32, "31 32 33 34 2d 75 73 65 72", 26);
    memcpy(info + 64, "MTIzNC11c2Vy", 12);
    memcpy(info + 80, "1234-user", 9);
#endif
    memcpy(info + 96, &flags, sizeof flags);
    return 0;
}

static int asked;

static RV no_mechanisms(unsigned long slot, void *list, unsigned long *count) {
    asked = 1;
    (void)slot;
    (void)list;
    *count = 0;
    return 0;
}

static RV open_session(unsigned long slot, unsigned long flags, void *a, void *b, unsigned long *session) {
    (void)slot;
    (void)a;
    (void)b;
    *session = 1;
#ifdef PROTECTED
    if (flags & 2UL) return 0xE2UL; /* CKR_TOKEN_WRITE_PROTECTED */
#endif
    (void)flags;
    return 0;
}

static RV login(void) {
#ifdef FORGETS
    return asked ? 0 : 0xA0UL; /* right where the suite asks first what the token can do, and then no more */
#else
    return 0;
#endif
}

static RV create(void) {
#ifdef FULL
    return 0x31UL; /* CKR_DEVICE_MEMORY */
#elif defined BROKEN
    return 5UL; /* CKR_GENERAL_ERROR */
#elif defined FORGETFUL
    return 0;
#else
    return NOT_SUPPORTED;
#endif
}

__attribute__((unused)) static RV find_none(unsigned long session, void *objects, unsigned long most, unsigned long *count) {
    (void)session;
    (void)objects;
    (void)most;
    *count = 0;
    return 0;
}

#ifdef DIES_LAST
__attribute__((destructor)) static void die(void) { abort(); }
#endif

static struct { unsigned char version[2]; void *f[68]; } list;

RV C_GetFunctionList(void **place) {
    int i;
#ifdef NEVER_LOADED
    for (;;) pause();
#endif
    for (i = 0; i < 68; i++) list.f[i] = (void *)refuse;
    list.version[0] = 2;
    list.version[1] = 40;
    list.f[0] = (void *)initialize;
    list.f[1] = (void *)finalize;
    list.f[2] = (void *)get_info;
    list.f[4] = (void *)slots;
    list.f[6] = (void *)token;
    list.f[7] = (void *)no_mechanisms;
    list.f[12] = (void *)open_session;
    list.f[13] = (void *)fine; /* C_CloseSession */
    list.f[14] = (void *)fine; /* C_CloseAllSessions */
    list.f[18] = (void *)login;
    list.f[19] = (void *)fine; /* C_Logout */
#ifdef DIES_AT_LOGOUT
    list.f[19] = (void *)die_at_once;
#endif
#ifdef DIES_AT_FINALIZE
    list.f[1] = (void *)die_at_once;
#endif
    list.f[20] = (void *)create;
#ifdef FORGETFUL
    list.f[26] = (void *)fine; /* C_FindObjectsInit */
    list.f[27] = (void *)find_none;
    list.f[28] = (void *)fine; /* C_FindObjectsFinal */
#endif
    *place = &list;
#ifdef NOLIST
    *place = NULL;
#endif
    return 0;
}
