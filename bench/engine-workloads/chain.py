"""A LangChain chain and agent that were made at init, with a model that answers from a list."""

from guest import serve
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

PROMPT = ChatPromptTemplate.from_messages([("system", "You explain {topic} in one sentence."), ("human", "{question}")])
MODEL = FakeListChatModel(responses=["A snapshot is an initialized environment, written down."])
CHAIN = PROMPT | MODEL | StrOutputParser() | RunnableLambda(lambda text: {"answer": text, "words": len(text.split())})
AGENT = create_agent(model=MODEL, tools=[])

serve(
    {
        "trivial": lambda: f"pong {len(CHAIN.steps)}",
        "real": lambda: CHAIN.invoke({"topic": "SnapStart", "question": "What is it?"}),
    }
)
