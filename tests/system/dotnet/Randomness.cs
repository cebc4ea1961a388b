// Draws from every source of randomness of .NET, at init and for each event.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net;
using System.Security.Cryptography;
using System.Threading;
using System.Threading.Tasks;

var initId = Guid.NewGuid().ToString("n");
var ownInstance = new Random();
using var worker = new Worker();

Dictionary<string, object> Take() => new()
{
    ["shared"] = Random.Shared.NextInt64(),
    ["sharedDouble"] = Random.Shared.NextDouble(),
    ["sharedItems"] = string.Concat(Random.Shared.GetItems<char>("abcdefghijklmnop", 16)),
    ["sharedOfWorker"] = worker.Run(() => Random.Shared.NextInt64()),
    ["sharedOfPool"] = Task.Run(() => Random.Shared.NextInt64()).Result,
    ["newInstance"] = new Random().NextInt64(),
    ["guid"] = Guid.NewGuid().ToString(),
    ["fileName"] = Path.GetRandomFileName(),
    ["generator"] = Convert.ToHexString(RandomNumberGenerator.GetBytes(16)),
    ["generatorInt"] = RandomNumberGenerator.GetInt32(int.MaxValue),
    ["ecKey"] = Convert.ToHexString(ECDsa.Create(ECCurve.NamedCurves.nistP256).ExportParameters(true).D!),
    ["aesKey"] = Convert.ToHexString(Aes.Create().Key),
};

var atInit = Take();
await new RuntimeApi().Run(input =>
{
    Thread.Sleep(input.TryGetProperty("sleep_ms", out var pause) ? pause.GetInt32() : 0);
    var answer = Take();
    answer["INIT"] = initId;
    answer["OWN_INSTANCE"] = ownInstance.NextInt64();
    return answer;
});

/// A thread that lives across the snapshot.
sealed class Worker : IDisposable
{
    private readonly System.Collections.Concurrent.BlockingCollection<Action> jobs = new();

    public Worker() => new Thread(() =>
    {
        foreach (var job in jobs.GetConsumingEnumerable())
        {
            job();
        }
    }) { IsBackground = true }.Start();

    public T Run<T>(Func<T> function)
    {
        var done = new TaskCompletionSource<T>();
        jobs.Add(() => done.SetResult(function()));
        return done.Task.Result;
    }

    public void Dispose() => jobs.CompleteAdding();
}
