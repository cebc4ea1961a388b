// Gives every clone of a snapshot a `Random.Shared` of its own. Loaded before any code of the function.
//
// .NET keeps the state behind `Random.Shared` in each thread, out of reach of a hook that runs in one of them. So
// `Random.Shared` itself is replaced before anyone has seen it: by a generator that *notices* a restore. Every sandbox has a
// `/dev/sysgenid` of its own with a number that no other has, and the page of memory that shows it changes with the
// sandbox. **Each call looks at that number first** and makes a new generator for its thread if it has changed, seeded from
// the kernel as `new Random()` always is.
//
// **A failure is thrown, never hidden**: then the init fails, and so does the publish.
//
// Deliberately absent: instances that a function made itself (`new Random()` at init), which cannot be found; OpenSSL
// (`RandomNumberGenerator`, keys), which the engine reseeds in every clone before any of this runs on; hash seeds, on which
// tables are built; and environments that are not snapshotted, which are left exactly as .NET makes them.

using System;
using System.IO;
using System.IO.MemoryMappedFiles;
using System.Runtime.CompilerServices;
using System.Threading;

/// The name and the method that .NET looks for in a startup hook.
internal static class StartupHook
{
    public static void Initialize()
    {
        if (Environment.GetEnvironmentVariable("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start")
        {
            Rekindle.SharedRandom.Install();
        }
    }
}

namespace Rekindle
{
    internal sealed unsafe class SharedRandom : Random
    {
        private const string GenerationFile = "/dev/sysgenid";

        private static readonly int* Generation = Map();

        [ThreadStatic]
        private static Random? own;

        [ThreadStatic]
        private static int ownGeneration;

        private static Random Own => own is { } random && ownGeneration == Volatile.Read(ref *Generation) ? random : Renewed();

        public static void Install()
        {
            SharedField(null) = new SharedRandom();
            if (Random.Shared is not SharedRandom)
            {
                throw new InvalidOperationException("Random.Shared was read before it could be made to notice restores");
            }
            // Compiled before the snapshot: otherwise every clone would do it again.
            Random.Shared.Next();
        }

        public override int Next() => Own.Next();

        public override int Next(int maxValue) => Own.Next(maxValue);

        public override int Next(int minValue, int maxValue) => Own.Next(minValue, maxValue);

        public override long NextInt64() => Own.NextInt64();

        public override long NextInt64(long maxValue) => Own.NextInt64(maxValue);

        public override long NextInt64(long minValue, long maxValue) => Own.NextInt64(minValue, maxValue);

        public override float NextSingle() => Own.NextSingle();

        public override double NextDouble() => Own.NextDouble();

        public override void NextBytes(byte[] buffer) => Own.NextBytes(buffer);

        public override void NextBytes(Span<byte> buffer) => Own.NextBytes(buffer);

        protected override double Sample() => Own.NextDouble();

        [MethodImpl(MethodImplOptions.NoInlining)]
        private static Random Renewed()
        {
            ownGeneration = Volatile.Read(ref *Generation);
            return own = new Random();
        }

        /// The field behind the property `Random.Shared`, writable.
        [UnsafeAccessor(UnsafeAccessorKind.StaticField, Name = "<Shared>k__BackingField")]
        private static extern ref Random SharedField(Random? type);

        /// The page of the generation number. It stays mapped as long as the process lives; the file need not stay open.
        private static int* Map()
        {
            using var file = new FileStream(GenerationFile, FileMode.Open, FileAccess.Read, FileShare.ReadWrite, bufferSize: 0);
            using var mapped = MemoryMappedFile.CreateFromFile(
                file, null, sizeof(int), MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: true);
            var view = mapped.CreateViewAccessor(0, sizeof(int), MemoryMappedFileAccess.Read);
            byte* page = null;
            view.SafeMemoryMappedViewHandle.AcquirePointer(ref page);
            return (int*)page;
        }
    }
}
