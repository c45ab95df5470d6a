import anyObject from "../examples/any-object.graphql";
import anyObjectVariables from "../examples/any-object.variables.json";
import conversations from "../examples/conversations.graphql";
import findTasks from "../examples/find-tasks.graphql";
import findTasksVariables from "../examples/find-tasks.variables.json";
import makePlan from "../examples/make-plan.graphql";
import makePlanVariables from "../examples/make-plan.variables.json";
import openQuestions from "../examples/open-questions.graphql";
import projects from "../examples/projects.graphql";

/** The tabs at the first visit. */
export const examples = [
  { query: projects },
  { query: makePlan, variables: makePlanVariables },
  { query: findTasks, variables: findTasksVariables },
  { query: openQuestions },
  { query: conversations },
  { query: anyObject, variables: anyObjectVariables },
];
