/* The end of a run. */
#ifndef EXIT_H
#define EXIT_H

enum { EXIT_PASS = 0, EXIT_FAIL = 1, EXIT_FAULT = 2 };

/* Ends the emulator or the debugger's session with this exit code; on a board of its own (SEMIHOST=0), parks. */
_Noreturn void stop(int code);
/* This core does nothing any more. */
_Noreturn void park(void);

#endif
