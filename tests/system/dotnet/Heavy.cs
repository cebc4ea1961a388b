// A heavy function: an ASP.NET Core application that listens inside of the environment and is asked over HTTP for every event,
// a table of 200,000 entries, a timer, the thread pool and a thread of its own. It checks itself.

using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Text.Json;
using System.Threading;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.Logging;

const string Address = "http://127.0.0.1:8080";
var initId = Guid.NewGuid().ToString("n");

var table = new Dictionary<string, int[]>();
for (var number = 0; number < 200_000; number++)
{
    table[$"entry {number}"] = new[] { number, number * 2 };
}

var builder = WebApplication.CreateSlimBuilder();
builder.WebHost.UseUrls(Address);
builder.Logging.ClearProviders();
var application = builder.Build();
application.MapGet("/sum/{count:int}", (int count) =>
{
    var text = JsonSerializer.Serialize(Enumerable.Range(0, count).ToDictionary(number => $"n{number}", number => number));
    var parsed = JsonSerializer.Deserialize<Dictionary<string, int>>(text)!;
    return Microsoft.AspNetCore.Http.Results.Text(parsed.Values.GroupBy(number => number % 7).Sum(group => group.Sum()).ToString());
});
await application.StartAsync();
using var http = new HttpClient();

var ticks = 0;
using var timer = new Timer(_ => Interlocked.Increment(ref ticks), null, 20, 20);
var jobs = new BlockingCollection<(int, TaskCompletionSource<int>)>();
new Thread(() =>
{
    foreach (var (number, done) in jobs.GetConsumingEnumerable())
    {
        done.SetResult(table[$"entry {number}"][1]);
    }
}) { IsBackground = true }.Start();
var source = File.OpenRead("/var/task/Heavy.runtimeconfig.json");
source.Seek(3, SeekOrigin.Begin);

async Task<object> Work(int count)
{
    var job = new TaskCompletionSource<int>(TaskCreationOptions.RunContinuationsAsynchronously);
    jobs.Add((count, job));
    var before = Volatile.Read(ref ticks);
    var pooled = await Task.WhenAll(Enumerable.Range(0, 8).Select(number => Task.Run(() => number * count)));
    await Task.Delay(60);
    return new
    {
        initId,
        entries = table.Count,
        sum = int.Parse(await http.GetStringAsync($"{Address}/sum/{count}")),
        fromThread = await job.Task,
        pooled = pooled.Sum(),
        ticking = Volatile.Read(ref ticks) > before,
        offset = source.Position,
    };
}

var api = new RuntimeApi();
api.BeforeSnapshot.Add(() => Work(5).GetAwaiter().GetResult());
await api.Run(input => Work(input.GetProperty("count").GetInt32()).GetAwaiter().GetResult());
