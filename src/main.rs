//! `collimate`: hand the command line over, exit with what comes back.

use std::process::ExitCode;

fn main() -> ExitCode {
    collimate::run::clock::mark_process_start();
    keep_freed_memory();
    leave_threads_to_the_kernels();
    collimate::cli::main_with(std::env::args_os())
}

/// Keeps candle's elementwise operations on the thread that calls them. They have a pool of their own, which knows nothing of
/// `--threads` and spins while it waits: a tenth of a step of a small model on a busy machine
#[expect(unsafe_code, reason = "the environment is the only switch")]
fn leave_threads_to_the_kernels() {
    const POOL: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(POOL).is_none() {
        // SAFETY: it runs before any thread is started
        unsafe { std::env::set_var(POOL, "1") };
    }
}

/// Tells glibc to keep freed buffers instead of handing them back to the kernel: a training step frees and takes the
/// same gigabytes again, and fresh pages cost more than the arithmetic on them
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the allocator's settings are a C call")]
fn keep_freed_memory() {
    // SAFETY: `mallopt` takes two integers; it runs before any thread is started
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

/// Other allocators are left as they are
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}
