// The smallest function in C#, with hooks around the snapshot.
//
// What the constructor does is done once, at publish. A before-snapshot hook is the place to run the handler's code ahead: what
// is compiled then need not be compiled in every environment.

using System;
using System.Threading;
using System.Threading.Tasks;
using Amazon.Lambda.Core;

[assembly: LambdaSerializer(typeof(Amazon.Lambda.Serialization.SystemTextJson.DefaultLambdaJsonSerializer))]

namespace Hello;

public record Request(string Name);

public record Response(string Message, string InitId, string RequestId, int Invocations, DateTimeOffset? RestoredAt);

public class Function
{
    private readonly string initId = Guid.NewGuid().ToString();
    private int invocations;
    private DateTimeOffset? restoredAt;

    public Function()
    {
        SnapshotRestore.RegisterBeforeSnapshot(() =>
        {
            Console.WriteLine("before the snapshot");
            Greeting(new Request("nobody"));
            return ValueTask.CompletedTask;
        });
        SnapshotRestore.RegisterAfterRestore(() =>
        {
            restoredAt = DateTimeOffset.UtcNow;
            return ValueTask.CompletedTask;
        });
    }

    public Response Handle(Request request, ILambdaContext context) =>
        new(Greeting(request), initId, context.AwsRequestId, Interlocked.Increment(ref invocations), restoredAt);

    private static string Greeting(Request request) => $"Hello, {request.Name}!";
}
