// The smallest function in Go, on the published client.
//
// What main does before lambda.Start is done once: SnapStart takes the snapshot while the client waits for its first event.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"sync/atomic"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type answer struct {
	InitID      string          `json:"initId"`
	RequestID   string          `json:"requestId"`
	Invocations int32           `json:"invocations"`
	Event       json.RawMessage `json:"event"`
	Random      string          `json:"random"`
}

func main() {
	initID := randomID()
	var invocations atomic.Int32
	lambda.Start(func(ctx context.Context, event json.RawMessage) (answer, error) {
		call, _ := lambdacontext.FromContext(ctx)
		return answer{initID, call.AwsRequestID, invocations.Add(1), event, randomID()}, nil
	})
}

func randomID() string {
	id := make([]byte, 16)
	rand.Read(id)
	return hex.EncodeToString(id)
}
