//! Log macros that go to `defmt` on a target without an operating system, else to `log`, else nowhere.
//!
//! Both features may be on: a build for bare metal then uses `defmt`. A hosted program has no `defmt` transport to
//! link against, so there it is always `log`.

macro_rules! armlet_log {
    ($level:ident, $($arg:tt)*) => {{
        #[cfg(all(feature = "defmt", target_os = "none"))]
        ::defmt::$level!($($arg)*);
        #[cfg(all(feature = "log", not(all(feature = "defmt", target_os = "none"))))]
        ::log::$level!($($arg)*);
        #[cfg(not(any(feature = "log", all(feature = "defmt", target_os = "none"))))]
        { let _ = ::core::format_args!($($arg)*); }
    }};
}

macro_rules! debug { ($($arg:tt)*) => { armlet_log!(debug, $($arg)*) }; }
