// Speaks the Runtime API for the test programs, the way a runtime client does: hooks around the snapshot, then one event after
// the other over one kept-alive connection. Deliberately absent: everything that the tests do not need.

using System;
using System.Collections.Generic;
using System.IO;
using System.Net.Http;
using System.Text;
using System.Text.Json;
using System.Threading;
using System.Threading.Tasks;

public sealed class RuntimeApi
{
    public readonly List<Action> BeforeSnapshot = new();
    public readonly List<Action> AfterRestore = new();

    private readonly HttpClient http = new() { Timeout = Timeout.InfiniteTimeSpan };
    private readonly string runtime = $"http://{Environment.GetEnvironmentVariable("AWS_LAMBDA_RUNTIME_API")}/2018-06-01/runtime";

    public static bool IsSnapStart => Environment.GetEnvironmentVariable("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start";

    /// Runs the hooks if a snapshot is to be made, and then answers events until the process ends.
    public async Task Run(Func<JsonElement, object> handler)
    {
        if (IsSnapStart)
        {
            await RunHooks(BeforeSnapshot, "init/error", "Runtime.BeforeSnapshotError");
            (await http.GetAsync($"{runtime}/restore/next")).EnsureSuccessStatusCode();
            await RunHooks(AfterRestore, "restore/error", "Runtime.AfterRestoreError");
        }
        while (true)
        {
            await Answer(handler);
        }
    }

    private async Task RunHooks(List<Action> hooks, string errorPath, string errorType)
    {
        try
        {
            hooks.ForEach(hook => hook());
        }
        catch (Exception failure)
        {
            await Report(errorPath, errorType, failure);
            Environment.Exit(64);
        }
    }

    private async Task Answer(Func<JsonElement, object> handler)
    {
        using var invocation = await http.GetAsync($"{runtime}/invocation/next");
        var id = string.Concat(invocation.Headers.GetValues("Lambda-Runtime-Aws-Request-Id"));
        var text = await invocation.Content.ReadAsStringAsync();
        try
        {
            using var document = JsonDocument.Parse(text);
            var answer = JsonSerializer.Serialize(handler(document.RootElement));
            await Post($"invocation/{id}/response", answer);
        }
        catch (Exception failure)
        {
            await Report($"invocation/{id}/error", failure.GetType().Name, failure);
        }
    }

    private Task Report(string path, string type, Exception failure) =>
        Post(path, JsonSerializer.Serialize(new { errorType = type, errorMessage = failure.Message }));

    private async Task Post(string path, string content)
    {
        using var body = new StringContent(content, Encoding.UTF8, "application/json");
        using var answer = await http.PostAsync($"{runtime}/{path}", body);
    }
}
