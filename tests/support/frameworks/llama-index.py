"""LlamaIndex: an index of one document, asked by a model that makes its answer up."""

from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM

REQUIRES = ["llama-index-core"]


def work(url):
    index = VectorStoreIndex.from_documents([Document(text="all is well")], embed_model=MockEmbedding(8))
    return index.as_query_engine(llm=MockLLM()).query("How is it?")
