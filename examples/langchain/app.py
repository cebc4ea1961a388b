"""A LangChain chain and an agent made at init; the model is a fake one, so nothing needs a network.

What costs is real: importing LangChain, pydantic and LangGraph, building the prompt, the chain and the agent's graph.
"""

from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

ANSWERS = ["A snapshot is an initialized environment, written down.", "A restore brings it back in milliseconds."]

PROMPT = ChatPromptTemplate.from_messages([("system", "You explain {topic} in one sentence."), ("human", "{question}")])
MODEL = FakeListChatModel(responses=ANSWERS)
CHAIN = PROMPT | MODEL | StrOutputParser() | RunnableLambda(lambda text: {"answer": text, "words": len(text.split())})
AGENT = create_agent(model=FakeListChatModel(responses=ANSWERS), tools=[])


def handler(event: dict, context: object) -> dict:
    """`{"action": "ping"}` answers at once; otherwise the chain answers `question` about `topic`."""
    if event.get("action") == "ping":
        return {"steps": len(CHAIN.steps)}
    return CHAIN.invoke({"topic": event.get("topic", "SnapStart"), "question": event.get("question", "What is it?")})
