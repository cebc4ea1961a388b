// The line protocol of the engine's benchmark on .NET; see guest.py.

using System;
using System.Collections.Generic;
using System.Linq;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;

const int WarmUps = 2;

var table = Enumerable.Range(0, 50_000).ToDictionary(number => $"entry {number}", number => number);
var numbers = JsonSerializer.Serialize(Enumerable.Range(0, 5_000));
var kinds = new Dictionary<string, Func<string>>
{
    ["trivial"] = () => $"pong {table.Count}",
    ["real"] = () => string.Join(",", JsonSerializer.Deserialize<List<int>>(numbers)!
        .GroupBy(number => number % 7)
        .Select(group => group.Sum())),
};

void AnswerLines(Socket connection)
{
    connection.NoDelay = true;
    connection.Send("ready\n"u8);
    var buffer = new byte[256];
    for (int count; (count = connection.Receive(buffer)) > 0;)
    {
        var kind = Encoding.UTF8.GetString(buffer, 0, count).Trim();
        connection.Send(Encoding.UTF8.GetBytes(kinds[kind]() + "\n"));
    }
}

for (var index = 0; index < WarmUps; index++)
{
    foreach (var handle in kinds.Values)
    {
        handle();
    }
}
using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
if (Environment.GetEnvironmentVariable("BENCH_LISTEN") is { } port)
{
    socket.Bind(new IPEndPoint(IPAddress.Loopback, int.Parse(port)));
    socket.Listen();
    while (true)
    {
        using var connection = socket.Accept();
        AnswerLines(connection);
    }
}
socket.Connect(IPAddress.Loopback, 9001);
AnswerLines(socket);
