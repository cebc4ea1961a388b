// A small function with hooks: what it says shows in which process it ran, what ran before, and how it was started.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text.Json;
using System.Threading;

var initId = Guid.NewGuid().ToString("n");
var events = new List<string>();
var invocations = 0;
var api = new RuntimeApi();
File.WriteAllText("/tmp/from-init", "made at init");
api.BeforeSnapshot.Add(() =>
{
    events.Add("before");
    Console.WriteLine("HOOK before");
    if (Environment.GetEnvironmentVariable("FAIL_BEFORE") != null)
    {
        throw new InvalidOperationException("cannot prepare");
    }
});
api.AfterRestore.Add(() =>
{
    events.Add("after");
    Console.WriteLine("HOOK after");
});
await api.Run(input =>
{
    if (input.TryGetProperty("fail", out _))
    {
        throw new InvalidOperationException("no such thing");
    }
    if (input.TryGetProperty("collect", out _))
    {
        // The collector stops every thread and flushes what other processors still hold: both must work in a clone.
        GC.Collect(2, GCCollectionMode.Aggressive, blocking: true, compacting: true);
    }
    Thread.Sleep(input.TryGetProperty("sleep_ms", out var pause) ? pause.GetInt32() : 0);
    return new
    {
        initId,
        events,
        invocations = ++invocations,
        file = File.ReadAllText("/tmp/from-init"),
        cwd = Environment.CurrentDirectory,
        settings = Environment.GetEnvironmentVariables().Keys.Cast<string>().Where(name => name.StartsWith("DOTNET_"))
            .ToDictionary(name => name, Environment.GetEnvironmentVariable),
        views = File.ReadLines("/proc/self/maps").Count(line => line.Contains("doublemapper")),
        diagnostics = Directory.EnumerateFiles("/tmp").Count(path => path.Contains("dotnet-diagnostic") || path.Contains("clr-debug")),
        random = Random.Shared.GetType().Name,
    };
});
