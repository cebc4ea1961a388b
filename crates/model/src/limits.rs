//! Every limit of the project, in one place.
//!
//! A limit that AWS documents or was seen to enforce carries that number; a limit of our own says why it stands where
//! it does. Limits of the wire format between the two roles are with that format (`host::protocol`). All of them
//! are checked before memory is taken.

/// Longest bare function name, in characters.
pub const FUNCTION_NAME_CHARS_MAX: usize = 64;
/// Longest function name in any accepted form (partial or full ARN), for operations that change something.
pub const FUNCTION_REFERENCE_CHARS_MAX: usize = 140;
/// Longest function name in any accepted form for operations that read or invoke.
pub const FUNCTION_REFERENCE_READ_CHARS_MAX: usize = 256;
/// Longest qualifier and longest alias name, in characters.
pub const QUALIFIER_CHARS_MAX: usize = 128;
/// Longest description, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 256;
/// Longest handler, in characters.
pub const HANDLER_CHARS_MAX: usize = 128;
/// Longest log group name, in characters.
pub const LOG_GROUP_CHARS_MAX: usize = 512;

/// Shortest function timeout, in seconds.
pub const TIMEOUT_S_MIN: u32 = 1;
/// Longest function timeout, in seconds.
pub const TIMEOUT_S_MAX: u32 = 900;
/// Function timeout when none was given, in seconds.
pub const TIMEOUT_S_DEFAULT: u32 = 3;
/// Smallest `MemorySize`, in MiB.
pub const MEMORY_MIB_MIN: u32 = 128;
/// Largest `MemorySize`, in MiB.
pub const MEMORY_MIB_MAX: u32 = 10_240;
/// `MemorySize` when none was given, in MiB.
pub const MEMORY_MIB_DEFAULT: u32 = 128;
/// Smallest `/tmp`, in MiB; also its size when none was given.
pub const EPHEMERAL_STORAGE_MIB_MIN: u32 = 512;
/// Largest `/tmp`, in MiB.
pub const EPHEMERAL_STORAGE_MIB_MAX: u32 = 10_240;
/// Size of all environment variables together, as compact JSON, in bytes.
pub const ENVIRONMENT_BYTES_MAX: usize = 4096;

/// Largest zip package that may be uploaded in a request, in bytes.
pub const CODE_ZIPPED_BYTES_MAX: u64 = 52_428_800;
/// Largest unpacked code, in bytes.
pub const CODE_UNZIPPED_BYTES_MAX: u64 = 262_144_000;
/// Most entries in a zip package. Our own: the largest packages seen in practice hold some 30,000 files, and each entry
/// costs an inode.
pub const CODE_ENTRIES_MAX: usize = 100_000;
/// Longest path inside a zip package, in bytes. Our own: it leaves room for the data directory below `PATH_MAX`.
pub const CODE_PATH_BYTES_MAX: usize = 1024;
/// Longest target of a symbolic link inside a zip package, in bytes.
pub const CODE_LINK_BYTES_MAX: u64 = 1024;
/// How long code that no function refers to stays on disk, in seconds: an invocation that began before the update may
/// still read it, and no invocation runs longer than [`TIMEOUT_S_MAX`].
pub const CODE_GRACE_S: u64 = TIMEOUT_S_MAX as u64 + 60;
/// How long a download address of code is valid, in seconds.
pub const CODE_LOCATION_VALID_S: u64 = 600;

/// Largest body of CreateFunction and UpdateFunctionCode, in bytes.
pub const CODE_REQUEST_BYTES_MAX: usize = 70_167_211;
/// Largest payload of a synchronous invocation, in bytes, both ways.
pub const INVOKE_PAYLOAD_BYTES_MAX: usize = 6_291_456;
/// Largest payload of an asynchronous invocation, in bytes.
pub const EVENT_PAYLOAD_BYTES_MAX: usize = 1_048_576;
/// Largest body of every other operation, in bytes. Our own: the largest legal one (an environment of 4 KiB with
/// every character escaped) is below 64 KiB.
pub const REQUEST_BYTES_MAX: usize = 1_048_576;
/// Request line and headers together, in bytes.
pub const REQUEST_HEAD_BYTES_MAX: usize = 1_048_576;
/// How much of a body over its limit is read and thrown away, in bytes, so that the client gets to read the refusal
/// instead of a reset connection.
pub const REQUEST_DRAIN_BYTES_MAX: usize = 268_435_456;
/// Requests with large bodies that are held in memory at one time; more wait.
pub const LARGE_BODIES_MAX: usize = 4;
/// Largest client context, in bytes of its base64 form.
pub const CLIENT_CONTEXT_BYTES_MAX: usize = 3583;
/// How much of an invocation's log goes into the response header, in bytes.
pub const LOG_TAIL_BYTES_MAX: usize = 4096;
/// Open connections to the API. Our own: each takes a descriptor and a task.
pub const API_CONNECTIONS_MAX: usize = 4096;
/// How long a client may take to send the head of a request, in seconds.
pub const REQUEST_HEAD_S_MAX: u64 = 30;
/// How long a client may take to send the body of a request, in seconds.
pub const REQUEST_BODY_S_MAX: u64 = 300;
/// How long requests in flight may go on after the server was told to stop, in seconds.
pub const SHUTDOWN_S_MAX: u64 = 10;
/// How far the clock of a signed request may be off, in seconds.
pub const SIGNATURE_SKEW_S_MAX: i64 = 300;
/// Longest `Authorization` header, in bytes.
pub const AUTHORIZATION_BYTES_MAX: usize = 4096;
/// Most headers that a signature may cover. Our own: SDKs sign fewer than ten.
pub const SIGNED_HEADERS_MAX: usize = 64;
/// Most parameters in a query string.
pub const QUERY_PARAMETERS_MAX: usize = 128;

/// Most items that one page of a list holds.
pub const PAGE_ITEMS_MAX: u32 = 50;
/// Largest `MaxItems` that is accepted.
pub const MAX_ITEMS_MAX: u32 = 10_000;
/// Most tags of one function.
pub const TAGS_MAX: usize = 50;
/// Longest tag key, in characters.
pub const TAG_KEY_CHARS_MAX: usize = 128;
/// Longest tag value, in characters.
pub const TAG_VALUE_CHARS_MAX: usize = 256;

/// Invocations that may run at one time in the whole account.
pub const CONCURRENT_EXECUTIONS_MAX: u32 = 1000;
/// How many of them must stay unreserved.
pub const UNRESERVED_EXECUTIONS_MIN: u32 = 100;
/// Bytes of code that all versions together may take (the packages as uploaded).
pub const CODE_TOTAL_BYTES_MAX: u64 = 322_122_547_200;

/// Snapshots that are built at one time. Our own: a build keeps a core busy.
pub const SNAPSHOT_BUILDS_MAX: usize = 2;
/// Snapshots that may wait to be built; one more is refused with `ConcurrentSnapshotCreateLimitExceeded`.
pub const SNAPSHOT_BUILDS_WAITING_MAX: usize = 100;
/// Longest reason that is kept with a failed state, in characters.
pub const STATE_REASON_CHARS_MAX: usize = 1024;
/// Shortest time that initialization at publish may take before it is given up, in seconds; a function's own timeout
/// counts when it is longer.
pub const PUBLISH_INIT_S_MIN: u64 = 130;
/// Most warm-up events before a snapshot. Our own: the compilers of the languages here have seen enough after some
/// hundred calls.
pub const WARM_UP_EVENTS_MAX: u32 = 1000;
/// How long a restore, with its after-restore hooks, may take, in seconds.
pub const RESTORE_S_MAX: u64 = 10;
/// How long an initialization outside publish may take before it is done again inside the invocation, in seconds.
pub const INIT_S_MAX: u64 = 10;
/// Resolved qualifiers that are kept in memory.
pub const RESOLVED_MAX: usize = 10_000;
